// Predict: the film stops before a decision and asks what will happen. Then it shows
// the reason, and keeps score.

import { h, name } from './dom.js';
import { describe, parse } from './words.js';

// questions are the decisions of a film that somebody can predict, by moment: which
// question, whether the answer is yes, and why.
function questions(film) {
  const out = new Map(), asked = new Map();
  const add = (moment, kind, q) => {
    // The same question with the same answer becomes rare.
    const key = `${kind} ${q.yes}`, n = asked.get(key) || 0;
    asked.set(key, n + 1);
    if (n < 4 || n % 6 === 0) out.set(moment, q);
  };
  film.moments.forEach((m, i) => {
    if (m.half || !i || (film.moments[i - 1].step === m.step && !film.moments[i - 1].half)) return;
    // A step may have two moments: before its fsync, and after it.
    let end = i;
    while (film.moments[end + 1]?.step === m.step) end++;
    const events = film.events.slice(m.first, film.moments[end].end);
    const received = events.filter((e) => e.kind === 'deliver');
    if (!received.length) return;
    const id = received[0].to, before = film.stateAt(id, i - 1), after = film.stateAt(id, end);
    if (!before.up) return;
    const reason = (...codes) => events.find((e) => e.kind === 'decide' && e.node === id && codes.includes(e.reason.code))?.reason;
    const because = (r, otherwise) => (r ? `${r.text} ${r.section ? `(${r.section})` : ''}` : otherwise);
    for (const e of received) {
      const o = parse(e.message);
      if (o.requestVote && !o.requestVote.preVote) {
        const reply = events.find((x) => x.kind === 'send' && x.from === id && x.to === e.from && x.message.includes('"requestVoteReply"'));
        if (!reply) continue;
        const yes = !!parse(reply.message).requestVoteReply?.granted;
        add(i, 'vote', { ask: `${name(e.from)} asks ${name(id)} for its vote in term ${o.term}. Will ${name(id)} vote for ${name(e.from)}?`, yes,
          why: because(reason('voted', 'already-voted', 'old-log', 'knows-no-voters', 'two-leaders', 'leader-lives'), yes ? `${name(id)} votes for ${name(e.from)}.` : `${name(id)} does not vote for ${name(e.from)}.`) });
        return;
      }
      if (o.requestVoteReply?.granted && !o.requestVoteReply.preVote && before.role === 'candidate' && o.term === before.term) {
        const all = before.config?.now || film.ids, yes = after.role === 'leader';
        add(i, 'leader', { ask: `${name(id)} has ${before.votes.length} of ${all.length} votes, and another one arrives from ${name(e.from)}. Will ${name(id)} become the leader of term ${before.term}?`, yes,
          why: because(reason('elected'), `${name(id)} has ${after.votes.length} of ${all.length} votes now: ${after.votes.map(name).join(', ')}. That is not enough. (§5.2)`) });
        return;
      }
      if (o.appendEntries?.entries?.length) {
        const refused = reason('refused', 'older-term', 'two-leaders', 'contradicts'), n = o.appendEntries.entries.length;
        const yes = !refused;
        add(i, 'accept', { ask: `${name(e.from)} sends ${name(id)} ${describe(e.message).title.replace('AppendEntries with ', '')}. Does ${name(id)} accept ${n === 1 ? 'it' : 'them'}?`, yes,
          why: because(refused || reason('truncated'), o.appendEntries.prevLogIndex ? `${name(id)} has the entry before ${n === 1 ? 'it' : 'them'}, ${o.appendEntries.prevLogTerm}@${o.appendEntries.prevLogIndex}. (§5.3)` : `Nothing has to come before the first entry of a log. (§5.3)`) });
        return;
      }
      if (o.appendEntriesReply?.success && before.role === 'leader' && o.term === before.term && o.appendEntriesReply.matchIndex > before.commit) {
        const yes = after.commit > before.commit, index = o.appendEntriesReply.matchIndex;
        const all = after.config?.now || film.ids;
        const holders = all.filter((x) => x === id || (after.progress.find((p) => p[0] === x)?.[2] || 0) >= index);
        const term = after.log[index - after.snapshot[0] - 1]?.[0];
        const why = term && term !== after.term && 2 * holders.length > all.length
          ? `A majority has entry ${index}, but it is of term ${term}, and ${name(id)} leads term ${after.term}. (§5.4.2)`
          : `${name(id)} knows of ${holders.length} of ${all.length} servers that have entry ${index}: ${holders.map(name).join(', ')}. (§5.3)`;
        add(i, 'commit', { ask: `${name(e.from)} answers ${name(id)}: its log now matches up to entry ${index}. Will ${name(id)} commit?`, yes, why: because(reason('committed'), why) });
        return;
      }
      if (o.replicateReply) {
        const r = reason('majority-answered'), yes = !!r;
        add(i, 'answer', { ask: `${name(e.from)} answers ${name(id)}. Will ${name(id)} now apply the write?`, yes, why: because(r, `${name(id)} has too few answers, or has applied it already.`) });
        return;
      }
    }
  });
  return out;
}

export function makePredict(root, badge, app) {
  let on = false, film = null, list = new Map(), open = null, right = 0, total = 0, resume = false;
  const answered = new Set();

  badge.addEventListener('click', () => api.toggle());

  function draw() {
    badge.hidden = !on;
    badge.textContent = total ? `predict ${right} of ${total} ✕` : 'predict ✕';
    badge.setAttribute('aria-label', `Predict is on${total ? `: ${right} of ${total} right` : ''}. Press to switch it off.`);
    root.hidden = !open;
    document.body.classList.toggle('asking', !!open);
    if (!open) return;
    const q = open.q;
    if (open.said === undefined) {
      root.replaceChildren(h('p', { class: 'ask' }, q.ask), h('div', { class: 'choices' },
        h('button', { type: 'button', class: 'go', onclick: () => say(true) }, 'Yes'), h('button', { type: 'button', class: 'go', onclick: () => say(false) }, 'No'), h('small', {}, 'keys: y, n'),
        h('button', { type: 'button', class: 'skip', onclick: () => close(true) }, 'Show me')));
    } else {
      const ok = open.said === q.yes;
      root.replaceChildren(h('p', { class: `ask ${ok ? 'right' : 'wrong'}` }, h('b', {}, ok ? '✓ Right. ' : `✗ No: the answer is ${q.yes ? 'yes' : 'no'}. `), q.why),
        h('div', { class: 'choices' }, h('button', { type: 'button', class: 'go', onclick: () => close(true) }, 'Continue'), h('small', {}, `${right} of ${total} right`)));
    }
    root.querySelector('button')?.focus({ preventScroll: true });
  }

  function say(yes) {
    if (!open || open.said !== undefined) return;
    open.said = yes;
    total++;
    if (yes === open.q.yes) right++;
    answered.add(open.moment);
    app.goTo(open.moment);
    draw();
  }

  function close(go) {
    if (!open) return;
    const { moment, said } = open;
    open = null;
    answered.add(moment);
    if (root.contains(document.activeElement)) document.querySelector('.key.play')?.focus({ preventScroll: true });
    draw();
    if (go && said === undefined) app.goTo(moment);
    if (go && resume) app.start();
    resume = false;
  }

  const api = {
    get on() { return on; },
    get asking() { return open !== null; },
    toggle() {
      on = !on;
      close(false);
      if (on && film) list = questions(film);
      draw();
      app.say(on ? 'Predict is on: the film stops before a decision, and asks you. Press play.' : 'Predict is off.');
    },
    // ask asks the first question between two moments, and says whether there is one.
    ask(from, to) {
      if (!on || open) return open !== null;
      let first = Infinity;
      for (const m of list.keys()) if (m > from && m <= to && m < first && !answered.has(m)) first = m;
      if (first === Infinity) return false;
      resume = app.playing;
      app.pause();
      app.goTo(first - 1);
      open = { moment: first, q: list.get(first) };
      draw();
      return true;
    },
    next: (from, to) => on && !open && [...list.keys()].some((m) => m > from && m <= to && !answered.has(m)),
    key(k) {
      if (!open || open.said !== undefined || (k !== 'y' && k !== 'n')) return false;
      say(k === 'y');
      return true;
    },
    reset(f) {
      film = f;
      open = null;
      answered.clear();
      list = on ? questions(f) : new Map();
      draw();
    },
    draw(view) { if (open && view.index !== open.moment && view.index !== open.moment - 1) close(false); },
  };
  return api;
}
