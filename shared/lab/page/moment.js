// What a film says about one moment: in words, and who waits for an answer.

import { name, names } from './dom.js';
import { sentence, describe, operation, parse } from './words.js';

// happens are the sentences about what happens at a moment. The verdict is left out
// where the page shows it already.
export function happens(film, index, judged) {
  const m = film.moments[index], events = film.events.slice(m.first, m.end);
  const lines = [], sends = new Map();
  for (const e of events) {
    if (e.kind === 'send') {
      const k = e.from + describe(e.message).title;
      if (sends.has(k)) { sends.get(k).push(e.to); continue; }
      sends.set(k, [e.to]);
      lines.push(() => `${name(e.from)} sends ${describe(e.message).title} to ${names(sends.get(k))}`);
    } else if (e.kind === 'drop') {
      const k = 'lost' + e.from + describe(e.message).title + e.text;
      if (sends.has(k)) { sends.get(k).push(e.to); continue; }
      sends.set(k, [e.to]);
      lines.push(() => `${describe(e.message).title} from ${name(e.from)} to ${names(sends.get(k))} is lost: ${e.text || 'the network loses it'}`);
    } else if (e.kind === 'start') {
      const k = 'start' + e.text;
      if (sends.has(k)) { sends.get(k).push(e.node); continue; }
      sends.set(k, [e.node]);
      lines.push(() => (sends.get(k).length > 1 ? `${names(sends.get(k))} start, each ${e.text}` : sentence(e)));
    } else if (e.kind !== 'logs' && !(judged && e.kind === 'verdict') && !(e.kind === 'save' && e !== events[0]) && !(e.kind === 'role' && events.some((x) => x.kind === 'decide' && x.node === e.node))) {
      const text = sentence(e);
      if (text) lines.push(() => text);
    }
  }
  if (m.memory) lines.push(() => `${name(m.memory)} has this only in memory`);
  return lines.map((l) => l());
}

// waiting are the clients with an operation that has no answer yet at a moment.
const spansOf = new WeakMap();
export function waiting(film, index) {
  let spans = spansOf.get(film);
  if (!spans) {
    const open = new Map();
    spans = [];
    film.events.forEach((e, i) => {
      const m = film.momentOfEvent[i];
      if (e.kind === 'invoke') { if (!open.has(e.client)) open.set(e.client, [m, operation(parse(e.message))]); else open.get(e.client)[1] = operation(parse(e.message)); }
      else if (e.kind === 'return' && open.has(e.client)) { const [from, what] = open.get(e.client); spans.push([from, m, e.client, what]); open.delete(e.client); }
    });
    for (const [c, [m, what]] of open) spans.push([m, Infinity, c, what]);
    spans.sort((a, b) => a[0] - b[0]);
    spansOf.set(film, spans);
  }
  const out = new Map();
  for (const [a, b, c, what] of spans) { if (a > index) break; if (index < b) out.set(c, what); }
  return out;
}
