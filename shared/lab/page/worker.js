// The worker that runs an engine as WebAssembly: {id, engine, question} in,
// {id, text} or {id, broken} out. The file wasm_exec.js is Go's, and the site has it.

/* global Go, answer */
let engine = null;

async function start(address) {
  importScripts('wasm_exec.js');
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status} ${response.statusText}`);
  const go = new Go();
  // The file is compressed, so that it is small on every web server.
  const wasm = new Response(response.body.pipeThrough(new DecompressionStream('gzip')), { headers: { 'Content-Type': 'application/wasm' } });
  const { instance } = await WebAssembly.instantiateStreaming(wasm, go.importObject);
  const ended = go.run(instance);
  if (typeof answer !== 'function') { await ended; throw new Error('the engine ended at once'); }
}

onmessage = async ({ data: { id, engine: address, question } }) => {
  try {
    engine ||= start(address);
    await engine;
    const text = answer(question);
    if (typeof text !== 'string') throw new Error('the engine has ended: it may have run out of memory');
    postMessage({ id, text });
  } catch (err) {
    postMessage({ id, broken: `the engine: ${err.message || err}` });
  }
};
