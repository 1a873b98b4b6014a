// A script and the fragment of a link: the whole run is in the link. After a point
// follows a hash of what happened.

export function encode(script) {
  const bytes = new TextEncoder().encode(JSON.stringify(script));
  let text = '';
  for (const b of bytes) text += String.fromCharCode(b);
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

export function decode(fragment) {
  const text = fragment.replace(/^#/, '').split('.')[0];
  if (!text) return null;
  const bytes = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  const script = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes), exact);
  if (script === null || typeof script !== 'object' || Array.isArray(script)) throw new Error('the link holds no script');
  return script;
}

// exact keeps integers that are too large for a number as they are written.
function exact(key, value, context) {
  return typeof value === 'number' && !Number.isSafeInteger(value) && context?.source && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

// seed reads the seed that somebody has typed; it is null for anything else.
export function seed(text) {
  const digits = text.trim();
  if (!/^\d{1,20}$/.test(digits) || BigInt(digits) >= 1n << 64n) return null;
  return Number.isSafeInteger(Number(digits)) || !JSON.rawJSON ? Number(digits) : JSON.rawJSON(String(BigInt(digits)));
}

// moment is the step that a link names, or null. A minus after it means: before
// what happens by itself in this step; a tilde: before a server syncs its disk.
export function moment() {
  const step = new URLSearchParams(location.search).get('step');
  return step === null || !/^\d{1,15}[-~]?$/.test(step) ? null : { step: parseInt(step, 10), half: step.endsWith('-'), memory: step.endsWith('~') };
}

// tour is the tour that a link names, and its step, or null.
export function tour() {
  const q = new URLSearchParams(location.search), name = q.get('tour');
  return name ? { name, at: Number(q.get('at')) || 1 } : null;
}

// mark writes a moment of a film as a step.
export const mark = (m) => (m.step ? m.step + (m.half ? '-' : m.memory ? '~' : '') : '');

// show puts the script, and the step if there is one, into the address bar.
export function show(script, step, tour) {
  history.replaceState(null, '', address(script, step, tour));
}

// runs has the hash of what happened in a script's film. A link carries it: where
// the code is another one, the same script may give another run.
const runs = new WeakMap();
export const played = (script, run) => { if (run) runs.set(script, run); };

// run is the hash that a fragment carries, or ''.
export const run = (fragment) => /^[^.]*\.([0-9a-f]{16})$/.exec(fragment)?.[1] || '';

// address is a link to a moment; that of a tour holds no script.
export function address(script, step, tour) {
  const q = new URLSearchParams(location.search);
  q.delete('tour');
  q.delete('at');
  if (tour) {
    q.delete('step');
    for (const [k, v] of Object.entries(tour)) q.set(k, v);
    return location.pathname + '?' + q.toString();
  }
  if (step) q.set('step', step); else q.delete('step');
  const query = q.toString();
  return location.pathname + (query ? '?' + query : '') + '#' + encode(script) + (runs.has(script) ? '.' + runs.get(script) : '');
}
