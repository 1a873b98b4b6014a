// The engine behind the page: a server on this machine, or WebAssembly that the
// site holds for each stage. Nobody else on the page knows which one it is.
//
// The description of a stage tells: one that names an engine comes from a site.

const described = new Map();
const workers = new Map();

async function get(address) {
  const answer = await fetch(address);
  const text = await answer.text();
  let json;
  try { json = JSON.parse(text); } catch { throw new Error(answer.ok ? `${address} holds no JSON` : `${address}: ${answer.status} ${answer.statusText}`); }
  if (!answer.ok) throw new Error(json.error || `${address}: ${answer.status} ${answer.statusText}`);
  return json;
}

// describe is what is known about this page's stage, or about another one.
export function describe(of = '') {
  let found = described.get(of);
  if (!found) {
    found = of ? describe().then((own) => {
      if (of === own.stage) return own;
      return get(own.engine ? `../${of}/stage` : `stage?of=${encodeURIComponent(of)}`);
    }) : get('stage');
    described.set(of, found);
    found.catch(() => described.delete(of));
  }
  return found;
}

// play plays a script, of this stage or of another one, and returns the film.
export const play = (script) => put(script, script);

// asked is the answer to another question about a script.
export const asked = (what, script, more = {}) => put({ ask: what, script, ...more }, script);

async function put(question, script) {
  const own = await describe();
  if (!own.engine) return send(question);
  const stage = await describe(script.stage);
  const folder = script.stage === own.stage ? '' : `../${script.stage}/`;
  if (script.edits?.length) {
    if (question === script) return stored(stage, folder, script);
    throw new Error(`this site holds only the film of edited code; the lab on your own machine can tell more: go run ./${script.stage} lab`);
  }
  return ask(folder + stage.engine, JSON.stringify(question));
}

// code is the code that plays a script, with the places of its rules.
export async function code(script) {
  const own = await describe();
  const { stage = own.stage, edits = [] } = script;
  if (!own.engine) return get(`source.json?${new URLSearchParams([['of', stage], ...edits.map((name) => ['edit', name])])}`);
  const folder = stage === own.stage ? '' : `../${stage}/`;
  return get(folder + [...edits, 'source.json'].join('.'));
}

async function send(question) {
  const answer = await fetch('film', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(question) });
  return read(await answer.text());
}

function read(text) {
  let json;
  try { json = JSON.parse(text); } catch { throw new Error(text.slice(0, 200) || 'the engine answered nothing'); }
  if (json.error) throw new Error(json.error);
  return json;
}

// stored is a film of edited code: a site has no compiler, so it holds such films.
async function stored(stage, folder, script) {
  const same = canonical(script);
  const film = (stage.films || []).find((f) => canonical(f.script) === same);
  if (!film) throw new Error(`this site holds no film of edited code for this script; the lab on your own machine plays it: go run ./${script.stage} lab`);
  const answer = await fetch(folder + film.file);
  if (!answer.ok) throw new Error(`${film.file}: ${answer.status} ${answer.statusText}`);
  return read(await new Response(answer.body.pipeThrough(new DecompressionStream('gzip'))).text());
}

// canonical writes a script so that equal ones have equal texts.
function canonical(x) {
  return JSON.stringify(x, (key, v) => (v && typeof v === 'object' && !Array.isArray(v) && !JSON.isRawJSON?.(v) ? Object.fromEntries(Object.entries(v).filter((e) => e[1] !== 0 && e[1] !== '').sort()) : v));
}

// ask asks an engine in a worker, so that the page goes on while it plays. The
// worker starts with the first question, and again after it broke.
function ask(address, question) {
  let w = workers.get(address);
  if (!w) {
    w = { worker: new Worker(new URL('worker.js', import.meta.url)), waiting: new Map(), next: 0 };
    const broken = (why) => {
      workers.delete(address);
      w.worker.terminate();
      for (const { reject } of w.waiting.values()) reject(new Error(why));
      w.waiting.clear();
    };
    w.worker.onmessage = ({ data }) => {
      const waits = w.waiting.get(data.id);
      w.waiting.delete(data.id);
      if (data.broken) { waits.reject(new Error(data.broken)); broken(data.broken); return; }
      try { waits.resolve(read(data.text)); } catch (err) { waits.reject(err); }
    };
    w.worker.onerror = (e) => { e.preventDefault(); broken(`the engine does not start: ${e.message || 'its worker cannot be loaded'}`); };
    workers.set(address, w);
  }
  return new Promise((resolve, reject) => {
    const id = w.next++;
    w.waiting.set(id, { resolve, reject });
    w.worker.postMessage({ id, question, engine: new URL(address, document.baseURI).href });
  });
}
