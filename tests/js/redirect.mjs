// Loaded with `node --import`: whatever address the reference client has hard-coded, its websocket packages connect to
// REALTIME_URL instead. Query, subprotocols and headers stay what the client chose.
import { register } from 'node:module';

const hooks = `
const shims = {
  ws: \`
    import { createRequire } from 'node:module';
    const Real = createRequire(process.env.REALTIME_JS_CLIENT + '/')('ws');
    export default class extends Real {
      constructor(address, ...rest) { super(process.env.REALTIME_URL + new URL(address).search, ...rest); }
    }\`,
  websocket: \`
    import { createRequire } from 'node:module';
    const real = createRequire(process.env.REALTIME_JS_CLIENT + '/')('websocket');
    class Redirected extends real.w3cwebsocket {
      constructor(address, ...rest) { super(process.env.REALTIME_URL + new URL(address).search, ...rest); }
    }
    export default { ...real, w3cwebsocket: Redirected };\`,
};
export function resolve(specifier, context, next) {
  if (specifier in shims) return { url: 'data:text/javascript,' + encodeURIComponent(shims[specifier]), shortCircuit: true };
  return next(specifier, context);
}`;
register('data:text/javascript,' + encodeURIComponent(hooks));
