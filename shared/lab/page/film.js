// A film: what happened, indexed, and the state of every server at any moment.
//
// A moment is a step with events. What somebody does before a step is a moment of
// its own (half is true), so that several things can be done at the same time. And
// what a server has in memory, just before it syncs its disk or falls, is a moment of
// its own (memory is the server).

import { describe, parse, operation, answer, outcome, sentence, passing } from './words.js';
import * as engine from './engine.js';
import * as link from './link.js';

const CHECKPOINT = 64;

// TICK is the time between two ticks of a server's clock, in nanoseconds.
export const TICK = 10e6;

// SILENT are the deeds without events of their own.
const SILENT = new Set(['lose', 'delay', 'repeat', 'full-disk', 'failed-fsync', 'power-cut-in-write', 'clock', 'lose-next', 'link-loss', 'link-repeat', 'link-delay', 'end-loads', 'end-filter', 'end-faults', 'end-plans']);

const fresh = { up: false, paused: false, role: '', term: 0, vote: 0, snapshot: [0, 0], commit: 0, applied: 0, config: null, votes: [], progress: [], log: [], removed: null, clock: 100, timer: [0, 0, 0], unsynced: [0, 0], store: {}, keys: 0, sessions: {} };

// LOOKS are the operations that only look at a server.
const LOOKS = new Set(['status', 'log', 'members', 'open']);

const told = new Set(['decide', 'note', 'verdict', 'stop', 'crash', 'pause', 'resume', 'cut', 'heal', 'trouble']);

export async function play(script) {
  const film = new Film(await engine.play(script));
  link.played(script, film.run);
  return film;
}

// complete adds to the events what the engine leaves out because it has said it
// already: see AppendJSON in package film.
function complete(events) {
  const texts = new Map();
  let before = {};
  for (const e of events) {
    if (e.at === undefined) { e.at = before.at; e.step = before.step; }
    const place = placeOf(e);
    if (place) { if (e.message === undefined) e.message = texts.get(place); else texts.set(place, e.message); }
    if (e.kind === 'send' && e.number) texts.set(flight(e), e.message);
    before = e;
  }
  return events;
}

// placeOf is where an event may have the same text as one before it.
function placeOf(e) {
  switch (e.kind) {
    case 'send': return `send ${e.from}`;
    case 'deliver': case 'drop': return e.number && flight(e);
    case 'invoke': case 'request': return `request ${e.client}`;
    case 'reply': case 'return': return `reply ${e.client}`;
    case 'apply': return e.index && `apply ${e.index}`;
  }
}

function flight(e) { return `${e.from}>${e.to}#${e.number}`; }

export class Film {
  constructor(json) {
    this.script = json.script;
    this.events = complete(json.events || []);
    this.outcomes = json.deeds || [];
    this.standing = json.standing || []; // the deeds that would end what the story goes on doing
    this.length = json.length || 0;
    this.steps = json.steps || 0;
    this.verdict = json.verdict || '';
    this.limit = json.limit || '';
    this.run = json.run || ''; // a hash of what happened
    this.makeMoments(json.frames || []);
    this.makeServers(json.frames || []);
    this.makeMessages();
    this.makeFeed();
    this.makeNetwork();
    this.makeMarks();
    // messages that somebody has decided to lose → before which step
    this.doomed = new Map();
    (this.script.deeds || []).forEach((d, i) => { if (d.do === 'lose' && this.outcomes[i]?.applied) this.doomed.set(flight(d), d.at); });
  }

  makeMoments(frames) {
    const unsynced = new Set(frames.filter((f) => f.unsynced && (f.unsynced[0] || f.unsynced[1])).map((f) => `${f.step}#${f.server}`));
    const done = new Map(); // step of a deed that applied → the servers it is about
    (this.script.deeds || []).forEach((d, i) => {
      const o = this.outcomes[i];
      if (!o || !o.applied) return;
      const set = done.get(o.step || d.at) || new Set();
      set.loud = set.loud || !SILENT.has(d.do);
      if (d.server && d.do !== 'request') set.add(d.server);
      done.set(o.step || d.at, set);
    });
    const moments = [];
    for (let i = 0; i < this.events.length;) {
      const step = this.events[i].step || 0;
      let end = i + 1;
      while (end < this.events.length && (this.events[end].step || 0) === step) end++;
      const at = this.events[i].at, last = this.events[end - 1].at;
      if (done.has(step)) {
        let split = i;
        while (split < end && this.events[split].at === at) split++;
        // What a deed does comes first, at the time of the step before.
        if (split < end) {
          moments.push({ step, at, first: i, end: split, half: done.get(step) });
          moments.push({ step, at: last, first: split, end });
        } else {
          moments.push({ step, at, first: i, end, half: done.get(step).loud ? done.get(step) : undefined });
        }
      } else moments.push({ step, at: last, first: i, end });
      i = end;
    }
    if (!moments.length) moments.push({ step: 0, at: 0, first: 0, end: 0 });
    for (let i = 0; i < moments.length; i++) {
      const m = moments[i];
      if (m.half) continue;
      for (let k = m.first + 1; k < m.end; k++) {
        const e = this.events[k];
        if (!['save', 'crash', 'stop'].includes(e.kind) || !unsynced.has(`${m.step}#${e.node}`)) continue;
        moments.splice(i++, 0, { ...m, end: k, memory: e.node });
        m.first = k;
        break;
      }
    }
    this.moments = moments;
    this.momentOfEvent = new Int32Array(this.events.length);
    moments.forEach((m, i) => this.momentOfEvent.fill(i, m.first, m.end));
    this.end = Math.max(this.length, moments[moments.length - 1].at);
  }

  // momentAt is the last moment that is not later than a time; momentOfStep that
  // of a step.
  momentAt(t) { return this.search((m) => m.at <= t); }
  momentOfStep(step) { return this.search((m) => m.step <= step); }
  search(holds) {
    let low = 0, high = this.moments.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (holds(this.moments[mid])) low = mid; else high = mid - 1;
    }
    return low;
  }

  makeServers(frames) {
    this.tracks = new Map();
    this.longest = 1; // index
    this.roles = false; // the first stages have no roles, terms and logs
    this.saves = new Map(); // server → when it has synced its disk
    const ids = new Set();
    for (const f of frames) {
      ids.add(f.server);
      let t = this.tracks.get(f.server);
      if (!t) this.tracks.set(f.server, t = { frames: [], kept: [], at: -1, state: fresh });
      t.frames.push(f);
      if (f.role) this.roles = true;
      if (f.log) this.longest = Math.max(this.longest, f.log.from + f.log.entries.length - 1);
    }
    for (const e of this.events) {
      if (e.kind === 'save') { if (!this.saves.has(e.node)) this.saves.set(e.node, []); this.saves.get(e.node).push(e.at); }
      for (const id of [e.node, e.from, e.to]) if (id) ids.add(id);
    }
    for (const t of this.tracks.values()) {
      let state = fresh;
      t.frames.forEach((f, i) => {
        state = this.apply(state, f);
        if (i % CHECKPOINT === 0) t.kept.push(state);
      });
    }
    // Further machines that have not been started yet.
    const { story, servers, spare } = this.script;
    if (!story && spare) for (let id = 1; id <= (servers || 5) + spare; id++) ids.add(id);
    this.ids = [...ids].sort((a, b) => a - b);
  }

  apply(was, f) {
    const now = { ...(f.up ? fresh : was), step: f.step };
    if (f.up === false) {
      // What was only in memory is gone, and so is what was computed from the log.
      const kept = was.unsynced[0] ? was.log.slice(0, Math.max(0, was.unsynced[0] - was.snapshot[0] - 1)) : was.log;
      return { ...was, up: false, paused: false, role: '', votes: [], progress: [], log: kept, timer: [0, 0, 0], unsynced: [0, 0], store: {}, sessions: {}, step: f.step };
    }
    for (const k of ['up', 'paused', 'role', 'term', 'vote', 'commit', 'applied', 'config', 'votes', 'progress', 'clock', 'timer', 'unsynced', 'keys']) if (k in f) now[k] = f[k];
    for (const k of ['store', 'sessions']) {
      if (!f[k]) continue;
      now[k] = { ...now[k], ...f[k] };
      for (const key in f[k]) if (f[k][key] === null) delete now[k][key];
    }
    const start = was.snapshot[0];
    if (f.snapshot) {
      now.snapshot = f.snapshot;
      const base = f.up ? 0 : start;
      now.log = f.snapshot[0] >= base ? now.log.slice(f.snapshot[0] - base) : [];
    }
    if (f.log) {
      const keep = Math.max(0, f.log.from - now.snapshot[0] - 1);
      const gone = now.log.slice(keep);
      now.log = now.log.slice(0, keep).concat(f.log.entries);
      if (gone.length && !f.up) now.removed = { step: f.step, from: f.log.from, entries: gone };
    }
    return now;
  }

  // state is the state of a server after a step, or before it, or within it just
  // before its disk is synced.
  state(id, step, before, memory) {
    const t = this.tracks.get(id);
    if (!t) return fresh;
    let low = -1, high = t.frames.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (before ? t.frames[mid].step < step : t.frames[mid].step <= step) low = mid; else high = mid - 1;
    }
    if (memory) while (low > 0 && t.frames[low].step === step && !(t.frames[low].unsynced?.[0] || t.frames[low].unsynced?.[1])) low--;
    if (low < 0) return fresh;
    if (t.at === low) return t.state;
    const from = low - low % CHECKPOINT;
    let state, next;
    if (t.at >= from && t.at < low) [state, next] = [t.state, t.at + 1]; else [state, next] = [t.kept[low / CHECKPOINT | 0], from + 1];
    for (; next <= low; next++) state = this.apply(state, t.frames[next]);
    t.at = low;
    t.state = state;
    return state;
  }

  // stateAt is the state at a moment.
  stateAt(id, index) {
    const m = this.moments[index];
    return this.state(id, m.step, m.half && !m.half.has(id), m.memory === id);
  }

  // timeLeft is the part of a server's election timeout that is left at a time, from
  // 1 to 0; null if it has none.
  timeLeft(st, t) {
    const [at, elapsed, timeout] = st.timer;
    if (!st.up || !timeout) return null;
    const passed = st.paused ? 0 : Math.max(0, t - at) / TICK * st.clock / 100;
    return Math.max(0, 1 - (elapsed + passed) / timeout);
  }

  // synced is how long before a time a server has synced its disk.
  synced(id, t) {
    const all = this.saves.get(id) || [];
    let low = 0, high = all.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (all[mid] <= t) low = mid + 1; else high = mid;
    }
    return low ? t - all[low - 1] : Infinity;
  }

  makeMessages() {
    this.messages = [];
    const sent = new Map(), calls = new Map(), answers = new Map();
    this.events.forEach((e, i) => {
      const m = this.momentOfEvent[i];
      const add = (x) => {
        const msg = { start: m, sentAt: e.at, end: Infinity, endAt: Infinity, lost: '', index: this.messages.length, line: e.message, ...x };
        this.messages.push(msg);
        return msg;
      };
      const finish = (msg, lost) => { msg.end = m; msg.endAt = e.at; msg.lost = lost; msg.endEvent = i; };
      const link = flight(e);
      const call = `${e.client}#${e.message ? parse(e.message).id : ''}`;
      switch (e.kind) {
        case 'send':
          sent.set(link, add({ from: e.from, to: e.to, number: e.number, ...describe(e.message) }));
          break;
        case 'deliver':
        case 'drop': {
          let msg = sent.get(link);
          if (!msg) break;
          if (msg.end !== Infinity) { // a copy that the network made
            msg = { ...msg, index: this.messages.length, copy: true };
            this.messages.push(msg);
          }
          finish(msg, e.kind === 'drop' ? e.text || 'lost' : '');
          break;
        }
        case 'invoke': {
          const o = parse(e.message);
          calls.set(call, add({ client: e.client, to: e.to, type: 'request', label: operation(o), title: 'request of a client', term: 0 }));
          break;
        }
        case 'request':
          if (calls.has(call)) { finish(calls.get(call), ''); calls.delete(call); }
          break;
        case 'reply': {
          const r = parse(e.message);
          answers.set(call, add({ from: e.node, client: e.client, type: 'answer', label: answer(e.message), title: 'answer to a client', term: 0, no: r.ok === false }));
          break;
        }
        case 'return': {
          if (answers.has(call)) { finish(answers.get(call), ''); answers.delete(call); }
          const lost = calls.get(call);
          if (lost) { finish(lost, 'no answer'); calls.delete(call); }
          break;
        }
      }
    });
    // in every block of moments: the messages that are on their way in it
    this.blocks = Array.from({ length: (this.moments.length >> 6) + 1 }, () => []);
    for (const m of this.messages) {
      const last = Math.min(m.end, this.moments.length - 1) >> 6;
      for (let b = m.start >> 6; b <= last; b++) this.blocks[b].push(m);
    }
  }

  // flights are the messages on their way at a moment, and those that were lost
  // just before a time.
  flights(index, t) {
    const out = [];
    const fading = 3e6;
    for (const m of this.blocks[index >> 6]) {
      if (m.start <= index && index < m.end) out.push(m);
      else if (m.lost && m.end <= index && t - m.endAt < fading) out.push(m);
    }
    if (index >> 6) for (const m of this.blocks[(index >> 6) - 1]) if (m.lost && m.end <= index && m.end >> 6 < index >> 6 && t - m.endAt < fading) out.push(m);
    return out;
  }

  makeFeed() {
    this.feed = [];
    // The answers to clients belong to the story, unless there are too many of them.
    // Those that only look at a server say nothing about it.
    const asked = new Map(), answers = new Map();
    this.events.forEach((e, i) => {
      if (e.kind === 'invoke') asked.set(e.client, parse(e.message));
      else if (e.kind === 'return' && !LOOKS.has(asked.get(e.client)?.op)) answers.set(i, asked.get(e.client));
    });
    const few = answers.size <= 60;
    let network = null; // the line about links that has just been added
    this.events.forEach((e, i) => {
      const answered = answers.has(i) && (few || e.client > 1_000_000);
      if (!told.has(e.kind) && !(e.kind === 'start' && e.step) && !answered) return;
      const moment = this.momentOfEvent[i], links = e.from && (e.kind === 'cut' || e.kind === 'heal');
      // One line for the links from a server, or to it.
      if (links && network?.kind === e.kind && network === this.feed[this.feed.length - 1]) {
        const { from, to } = network, one = (list, id) => list.length === 1 && list[0] === id;
        if (one(from, e.from) || one(to, e.to)) {
          if (one(from, e.from)) to.push(e.to); else from.push(e.from);
          Object.assign(network, { moment, at: e.at, node: one(from, network.node) ? network.node : 0, text: passing(e.kind, from, to) });
          return;
        }
      }
      const text = answered ? `${operation(answers.get(i) || {})}: ${outcome(e)}` : sentence(e);
      if (text) this.feed.push({ moment, at: e.at, kind: e.kind, broken: e.kind === 'verdict' && !!(e.reason || this.verdict), node: e.node, client: e.client, term: e.term || 0, code: e.reason?.code || '', section: e.reason?.section || '', text });
      if (links) network = Object.assign(this.feed[this.feed.length - 1], { from: [e.from], to: [e.to] });
    });
    this.decisions = [...new Set(this.feed.filter((f) => f.kind === 'decide').map((f) => f.moment))];
    this.leaderChanges = [...new Set(this.events.map((e, i) => (e.kind === 'role' && e.role === 'leader' ? this.momentOfEvent[i] : -1)).filter((m) => m >= 0))];
  }

  // fed is how many lines of the feed belong to the moments up to one.
  fed(index) {
    let low = 0, high = this.feed.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.feed[mid].moment <= index) low = mid + 1; else high = mid;
    }
    return low;
  }

  makeNetwork() {
    this.networks = [{ moment: -1, cut: new Set() }];
    this.events.forEach((e, i) => {
      if (e.kind !== 'cut' && e.kind !== 'heal') return;
      const cut = new Set(this.networks[this.networks.length - 1].cut);
      if (e.from) {
        const link = `${e.from}>${e.to}`;
        if (e.kind === 'cut') cut.add(link); else cut.delete(link);
      } else {
        cut.clear();
        if (e.kind === 'cut') {
          const side = new Map();
          (e.sides || []).forEach((group, k) => { for (const id of group) side.set(id, k); });
          for (const a of this.ids) for (const b of this.ids) if (a !== b && (!side.has(a) || side.get(a) !== side.get(b))) cut.add(`${a}>${b}`);
        }
      }
      this.networks.push({ moment: this.momentOfEvent[i], cut });
    });
  }

  cuts(index) {
    let n = this.networks.length - 1;
    while (this.networks[n].moment > index) n--;
    return this.networks[n].cut;
  }

  // rates says how the messages of a link travel at a moment: in percent that are
  // lost, in percent that arrive twice, and the delay.
  rates(index, from, to) {
    const r = { loss: 0, again: 0, delay: 0 };
    (this.script.deeds || []).forEach((d, i) => {
      const o = this.outcomes[i];
      if (!o?.applied || (o.step || d.at) > this.moments[index].step + 1) return;
      if (d.do === 'heal-all') r.loss = r.again = r.delay = 0;
      if (d.from !== from || d.to !== to) return;
      if (d.do === 'link-loss') r.loss = d.percent || 0;
      if (d.do === 'link-repeat') r.again = d.percent || 0;
      if (d.do === 'link-delay') r.delay = d.for || 0;
    });
    return r;
  }

  // kinds are the kinds of the messages that servers send each other in this film.
  kinds() {
    if (!this.allKinds) {
      this.allKinds = [...new Set(this.events.filter((e) => e.kind === 'send').map((e) => Object.entries(parse(e.message)).find(([, v]) => v && typeof v === 'object')?.[0]).filter(Boolean))].sort();
    }
    return this.allKinds;
  }

  makeMarks() {
    this.marks = [];
    this.events.forEach((e, i) => {
      const mark = (kind, text) => this.marks.push({ kind, at: e.at, moment: this.momentOfEvent[i], term: e.term || 0, text });
      if (e.kind === 'role' && e.role === 'leader') mark('leader', `${'n' + e.node} leads term ${e.term}`);
      else if (e.kind === 'role' && e.role === 'candidate') mark('candidate', `n${e.node} starts an election in term ${e.term}`);
      else if (e.kind === 'crash' || e.kind === 'stop') mark('crash', sentence(e));
      else if (e.kind === 'cut') mark('cut', sentence(e));
      else if (e.kind === 'heal') mark('heal', sentence(e));
      else if (e.kind === 'verdict') mark(e.reason || this.verdict ? 'verdict' : 'fine', sentence(e));
    });
    if (this.verdict) this.marks.push({ kind: 'verdict', at: this.end, moment: this.moments.length - 1, text: this.verdict });
    let most = 0;
    this.commits = [];
    const all = [...this.tracks.values()].flatMap((t) => t.frames.filter((f) => f.commit)).sort((a, b) => a.step - b.step);
    for (const f of all) {
      if (f.commit > most) { most = f.commit; this.commits.push(this.momentOfStep(f.step)); }
    }
  }
}
