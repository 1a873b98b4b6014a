// Compare: the same script against another stage, or against edited code. Both films
// go on in step by virtual time.

import { h, time } from './dom.js';
import { play } from './film.js';
import { describe } from './engine.js';
import { makeStage } from './stage.js';
import { makeLogs } from './logs.js';
import { happens, waiting } from './moment.js';
import { answer, client as clientName, deed as deedName, operation, parse } from './words.js';

const MESSAGES = new Set(['lose', 'delay', 'repeat']);

// translate writes a script for another stage: a deed happens at the same virtual
// time there, which is another step, and the message that it is about has another
// number. It returns the film as well, and the deeds that the stage does not know.
async function translate(script, stage, edits) {
  const out = { ...script, stage: stage.stage, deeds: [] }, unknown = [];
  delete out.edits;
  if (edits.length) out.edits = edits;
  const same = stage.stage === script.stage;
  const played = () => { const s = { ...out }; if (!s.deeds.length) delete s.deeds; return play(s); };
  let film = null;
  for (const d of script.deeds || []) {
    const op = d.do === 'request' ? parse(d.request).op : '';
    if (!stage.deeds.includes(d.do) || (op && !stage.ops.includes(op))) { unknown.push(deedName(d)); continue; }
    if (same && !edits.length) { out.deeds.push(d); continue; }
    film ||= await played();
    const at = film.events.find((e) => e.at > (d.time || 0))?.step || film.steps + 1;
    const copy = { ...d, at: Math.max(1, at, out.deeds.at(-1)?.at || 0) };
    if (MESSAGES.has(d.do)) {
      const there = film.messages.findLast((m) => m.from === d.from && m.to === d.to && m.number && m.sentAt <= (d.time || 0) && m.endAt > (d.time || 0));
      if (!there) { unknown.push(`${deedName(d)} (no message is on this link then)`); continue; }
      copy.number = there.number;
    }
    out.deeds.push(copy);
    film = null;
  }
  return { film: film || await played(), unknown };
}

// answers are what the clients of a film learn, in the end, about each operation.
function answers(film) {
  const all = [], last = new Map();
  film.events.forEach((e, i) => {
    if (e.kind === 'invoke') {
      const o = parse(e.message), op = operation(o);
      if (o.op === 'open' || o.op === 'lead') { last.delete(e.client); return; }
      if (last.get(e.client)?.op === op && !last.get(e.client).ok) return; // a retry
      const x = { client: e.client, op, said: 'no answer', moment: film.momentOfEvent[i], at: e.at, ok: false };
      last.set(e.client, x);
      all.push(x);
    } else if (e.kind === 'return' && last.has(e.client)) {
      const x = last.get(e.client);
      Object.assign(x, { said: answer(e.message), ok: parse(e.message).ok === true, moment: film.momentOfEvent[i], at: e.at });
    }
  });
  return all;
}

// difference is the first one that a client sees, or null.
function difference(a, b) {
  const other = new Map();
  for (const x of answers(b)) { if (!other.has(x.client)) other.set(x.client, []); other.get(x.client).push(x); }
  let first = null;
  for (const x of answers(a)) {
    const y = other.get(x.client)?.shift();
    if (y && y.op === x.op && y.said === x.said) continue;
    if (!first || x.at < first.at) first = { moment: x.moment, at: x.at, client: x.client, a: `${x.op}: ${x.said}`, b: y ? `${y.op}: ${y.said}` : x.at > b.end ? 'nothing, since that film has ended' : 'not asked' };
    if (!y || y.op !== x.op) other.set(x.client, []); // from here on they do different things
  }
  return first;
}

// firstEvent is the first event in which two films of one stage differ.
function firstEvent(a, b) {
  for (let i = 0; i < Math.min(a.events.length, b.events.length); i++) {
    if (JSON.stringify(a.events[i]) !== JSON.stringify(b.events[i])) return a.momentAt(Math.min(a.events[i].at, b.events[i].at));
  }
  return a.events.length === b.events.length ? -1 : a.moments.length - 1;
}

const end = (film) => {
  if (film.verdict) return ['broken', '✗ ' + film.verdict];
  const v = film.events.findLast((e) => e.kind === 'verdict');
  return ['fine', v ? '✓ ' + (v.text || 'survived') : `✓ nothing broke${film.limit ? ' so far' : ''}`];
};

export function makeCompare(app, els) {
  let twin = null, views = [];
  const named = () => `${twin.stage.stage}${twin.edits.length ? `, edited: ${twin.edits.join(', ')}` : ''}`;

  function bar() {
    const [kindA, endA] = end(app.film), [kindB, endB] = end(twin.film);
    const d = difference(app.film, twin.film);
    const same = twin.stage.stage === app.stage.stage, event = same ? firstEvent(app.film, twin.film) : -1;
    // A tour of the same name tells what an edit costs.
    const shows = app.tours?.find((x) => x.stage === app.stage.stage && twin.edits.includes(x.name));
    const go = (moment, text) => h('button', { type: 'button', onclick: () => app.seek(moment) }, text);
    els.bar.replaceChildren(
      h('p', { class: 'ends' }, h('span', { class: kindA }, h('b', {}, app.stage.stage + ' '), endA), h('span', { class: kindB }, h('b', {}, named() + ' '), endB)),
      h('p', { class: 'first' }, d
        ? [h('b', {}, 'First difference that a client sees: '), `${clientName(d.client)}, ${d.a} here, and ${d.b} there, at ${time(d.at)}. `, go(d.moment, 'Go there')]
        : ['The clients see no difference. ', shows && ['The film that shows what this edit costs is a tour. ', h('button', { type: 'button', onclick: () => app.tour.begin(shows.name) }, 'Take it'), ' ']],
      event >= 0 && [' The films differ from ', time(app.film.moments[event].at), ' on. ', go(event, 'First difference')],
      twin.unknown.length > 0 && h('span', { class: 'not' }, ` Left out, because ${twin.stage.stage} does not know it: ${twin.unknown.join('; ')}.`)),
      h('button', { type: 'button', class: 'close', 'aria-label': 'End the comparison', onclick: () => api.end() }, '×'));
    app.film.marks = app.film.marks.filter((m) => m.kind !== 'differs');
    for (const [moment, text] of [[d?.moment ?? -1, 'the first difference that a client sees'], [event, 'the first different event']]) {
      if (moment >= 0) app.film.marks.push({ kind: 'differs', at: app.film.moments[moment].at, moment, term: 0, text });
    }
  }

  function show(on) {
    document.body.classList.toggle('comparing', on);
    for (const e of [els.bar, els.scene, els.logbox, els.own]) e.hidden = !on;
    const q = new URLSearchParams(location.search);
    for (const k of ['compare', 'edit']) q.delete(k);
    if (on) { q.set('compare', twin.stage.stage); if (twin.edits.length) q.set('edit', twin.edits[0]); }
    history.replaceState(null, '', location.pathname + (q.toString() ? '?' + q : '') + location.hash);
  }

  async function fetchTwin(of, edits) {
    const stage = await describe(of === app.stage.stage ? '' : of);
    if (app.script.story && !stage.stories.some((s) => s.name === app.script.story)) throw new Error(`${stage.stage} does not play the story ${app.script.story}`);
    return { stage, edits, ...await translate(app.script, stage, edits) };
  }

  const api = {
    get on() { return twin !== null; },
    // begin plays the script against a stage, with edits to its code.
    async begin(of, edits = []) {
      app.say(`Playing the same script against ${of}… The first time, its code is built.`, true);
      let found;
      try { found = await fetchTwin(of, edits); } catch (err) { app.say(`The films cannot be compared: ${err.message}.`, true); return false; }
      app.say('');
      app.tour.end();
      const film = found.film;
      const fresh = !twin;
      twin = { ...found, index: 0, t: 0, selected: null, redraw: () => api.draw(app.view()), choose: () => app.say('This is the film to compare with. Decide in the other one what happens; it happens in both.') };
      if (fresh) app.showView('ring');
      els.ring.replaceChildren(); els.logs.replaceChildren();
      views = [makeStage(els.ring, twin), makeLogs(els.logs, twin)];
      els.own.textContent = app.stage.stage;
      els.name.textContent = named();
      show(true);
      for (const v of views) v.reset(film);
      bar();
      app.resetTime();
      app.redraw();
      return true;
    },
    end() {
      if (!twin) return;
      show(false);
      twin = null;
      views = [];
      app.film.marks = app.film.marks.filter((m) => m.kind !== 'differs');
      app.resetTime();
      app.redraw();
    },
    // again plays another script of the page against the same stage.
    again() { if (twin) return api.begin(twin.stage.stage, twin.edits); },
    // busy reports whether a message is on its way in the other film.
    busy(t) { return twin !== null && t <= twin.film.end && twin.film.flights(twin.film.momentAt(t), t).length > 0; },
    choices() {
      const own = app.stage.stage, all = (app.stage.stages || []).filter((s) => s !== own && s >= '02');
      return [...all.map((s) => [s, 'The same script against this stage', () => api.begin(s)]),
        ...(app.stage.edits || []).map((e) => [`${own}, edited: ${e.name}`, e.about, () => api.begin(own, [e.name])])];
    },
    reset() {},
    draw(view) {
      if (!twin) return;
      const film = twin.film;
      twin.t = Math.min(view.t, film.end);
      twin.index = film.momentAt(twin.t);
      for (const v of views) v.draw({ index: twin.index, t: twin.t, waiting: waiting(film, twin.index) });
      const over = twin.index >= film.moments.length - 1 && view.t >= film.end;
      els.caption.replaceChildren(...happens(film, twin.index).slice(0, 3).map((t) => h('span', {}, t)), over ? h('span', { class: 'more' }, 'This film ends here.') : '');
    },
  };
  return api;
}
