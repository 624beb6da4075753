// One conversation of the published JS reference client (openai/openai-realtime-api-beta) with a Realtime server:
//
//   REALTIME_JS_CLIENT=/path/to/client REALTIME_URL=ws://127.0.0.1:8765/v1/realtime \
//     node --import ./redirect.mjs converse.mjs node|browser KEY
//
// `node` takes the client's Node path (headers), `browser` its browser path (subprotocols). What the client's
// application sees is printed as one JSON object a line; the test beside this file says what it has to be. The server's
// script must have: a spoken answer, another one, a call of get_weather, its spoken answer, an answer to a spoken turn, and
// a long answer that is interrupted.
import { pathToFileURL } from 'node:url';

const [path, key] = process.argv.slice(2);
const home = process.env.REALTIME_JS_CLIENT;
if (path === 'browser') globalThis.WebSocket = (await import('ws')).default;
console.warn = () => {};
const { RealtimeClient } = await import(pathToFileURL(`${home}/index.js`).href);

const tell = (fact) => console.log(JSON.stringify(fact));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const seen = ({ id, type, role, status, formatted }) => ({
  id,
  type,
  role,
  status,
  text: formatted.text,
  transcript: formatted.transcript,
  samples: formatted.audio.length,
});
const tone = (ms) => Int16Array.from({ length: 24 * ms }, (_, n) => 9000 * Math.sin((2 * Math.PI * 440 * n) / 24000));

const client = new RealtimeClient({ apiKey: key, dangerouslyAllowAPIKeyInBrowser: true });
const kinds = [];
client.on('realtime.event', ({ source, event }) => {
  kinds.push(`${source}.${event.type}`);
  if (event.type === 'error') tell({ error: event.error });
});
client.realtime.on('close', () => process.exit(3));
client.updateSession({ instructions: 'Be brief.', input_audio_transcription: { model: 'whisper-1' } });

const nextAnswer = async () => {
  let item;
  do ({ item } = await client.waitForNextCompletedItem());
  while (item.role !== 'assistant');
  return item;
};
const done = async (turn, item) => {
  await client.realtime.waitForNext('server.response.done');
  tell({ turn, ...seen(item) });
};

await client.connect();
await client.waitForSessionCreated();
await client.realtime.waitForNext('server.session.updated');

// 1. Text in, speech out.
let answer = nextAnswer();
client.sendUserMessageContent([{ type: 'input_text', text: 'How are you?' }]);
tell({ turn: 'asked', ...seen((await client.waitForNextItem()).item) });
await done('text', await answer);

// 2. Speech in, committed by hand.
answer = nextAnswer();
client.appendInputAudio(tone(500));
client.createResponse();
tell({ turn: 'spoke', ...seen((await client.waitForNextItem()).item) });
await done('audio', await answer);

// 3. A tool: the client answers the call and asks for the next response by itself.
client.addTool(
  { name: 'get_weather', description: 'The weather.', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
  async ({ city }) => ({ city, sky: 'clear' }),
);
await client.realtime.waitForNext('server.session.updated');
answer = nextAnswer();
client.sendUserMessageContent([{ type: 'input_text', text: 'And the weather?' }]);
await done('tool', await answer);

// 4. The server's VAD finds the turn.
client.updateSession({ turn_detection: { ...client.defaultServerVadConfig } });
await client.realtime.waitForNext('server.session.updated');
answer = nextAnswer();
const transcribed = client.realtime.waitForNext('server.conversation.item.input_audio_transcription.completed');
for (const pcm of [tone(400), new Int16Array(24 * 600)])
  for (let at = 0; at < pcm.length; at += 480) {
    client.appendInputAudio(pcm.slice(at, at + 480));
    await sleep(10);
  }
await done('vad', await answer);
await transcribed;
const turn = client.conversation.getItems().findLast((item) => item.role === 'user');
tell({ turn: 'heard', ...seen(turn) });

// 5. Interrupted after 100 ms.
client.createResponse();
await client.realtime.waitForNext('server.response.audio.delta');
const long = client.conversation.getItems().at(-1);
client.cancelResponse(long.id, 2400);
await client.realtime.waitForNext('server.conversation.item.truncated');
tell({ turn: 'cut', ...seen(client.conversation.getItem(long.id)) });

client.deleteItem(long.id);
await client.realtime.waitForNext('server.conversation.item.deleted');
tell({ items: client.conversation.getItems().length, kinds });
process.exit(0);
