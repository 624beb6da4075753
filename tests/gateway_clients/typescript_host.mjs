// Runs the TypeScript client of the WaaV gateway's page: node --experimental-websocket typescript_host.mjs PORT SPEECH HEARD BYTES
//
// Its words are kept; taken out is only what is no JavaScript (the type of one constant) and the import of the SDK, for whose
// `createRealtimeConfig` there is a stand-in with the keys that the SDK sends. What the page leaves to a browser is given:
// getUserMedia, AudioContext (sends SPEECH, PCM16 at 24 kHz), playAudio (writes HEARD), and the port.
import { appendFileSync, readFileSync } from 'node:fs';

const [port, speech, heard, bytes] = process.argv.slice(2);
const printed = readFileSync(new URL('./printed_typescript.txt', import.meta.url), 'utf8')
  .replace(/^import .*'@bud-foundry\/sdk';$/m, '')
  .replace('const config: RealtimeSessionConfig =', 'const config =');

const createRealtimeConfig = (provider, overrides) => ({
  provider,
  model: 'gpt-4o-realtime-preview',
  turnDetection: 'server_vad',
  vad: { enabled: true, threshold: 0.5, silenceDurationMs: 500, prefixPaddingMs: 300 },
  inputTranscription: { enabled: true, model: 'whisper-1' },
  temperature: 0.8,
  maxResponseTokens: 'inf',
  ...overrides,
});

let socket;
class OurWebSocket extends WebSocket {
  constructor(address) {
    super(address.replace('3001', port));
    socket = this;
    this.addEventListener('close', (event) => console.log(`closed ${event.code}`));
  }
}

class OurAudioContext {
  constructor({ sampleRate }) {
    console.log(`speaks at ${sampleRate}`);
    const pcm = readFileSync(speech);
    let at = 0;
    const send = () => {
      socket.send(pcm.subarray(at, (at += 3999)));
      if (at < pcm.length) setTimeout(send, 20);
    };
    send();
  }
}

let played = Promise.resolve();
let count = 0;
const playAudio = (blob) => {
  played = played.then(async () => {
    const pcm = Buffer.from(await blob.arrayBuffer());
    appendFileSync(heard, pcm);
    count += pcm.length;
    if (count >= Number(bytes)) socket.close(1000);
  });
};

new Function('createRealtimeConfig', 'WebSocket', 'AudioContext', 'navigator', 'playAudio', printed)(
  createRealtimeConfig,
  OurWebSocket,
  OurAudioContext,
  { mediaDevices: { getUserMedia: async () => ({}) } },
  playAudio,
);
