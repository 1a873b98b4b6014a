// The page: one film, one moment, and views that draw it.

import { h, calm } from './dom.js';
import { play as fetchFilm } from './film.js';
import * as link from './link.js';
import { describe } from './engine.js';
import { client } from './words.js';
import { makeStage } from './stage.js';
import { makeLogs } from './logs.js';
import { makeWhy } from './why.js';
import { makeSource } from './source.js';
import { makeTour } from './tour.js';
import { makePredict } from './predict.js';
import { makeCompare } from './compare.js';
import { happens, waiting } from './moment.js';
import { makeReal } from './live.js';
import { makeTime } from './time.js';
import { makeMenu, makeDeeds } from './deeds.js';
import { makeInspector } from './inspector.js';
import { makeSpacetime } from './spacetime.js';
import { save } from './picture.js';

const $ = (id) => document.getElementById(id);

const app = {
  stage: null, script: null, film: null,
  index: 0, t: 0, playing: false, held: false, speed: 0.002, brisk: true, selected: null,

  view() { return { index: this.index, t: this.t, waiting: waiting(this.film, this.index) }; },

  redraw() { if (this.film) for (const v of views) v.draw(this.view()); },

  seek(index) {
    stopTween();
    this.pause();
    this.goTo(index);
  },
  goTo(index) {
    this.index = Math.max(0, Math.min(index, this.film.moments.length - 1));
    this.t = this.film.moments[this.index].at;
    draw();
    remember();
  },
  seekTime(t) {
    stopTween();
    this.t = Math.max(0, Math.min(t, this.film.end));
    this.index = this.film.momentAt(this.t);
    draw();
    remember();
  },

  // travel plays quickly up to a later moment, so that the way there is seen.
  travel(to) {
    this.pause();
    if (this.predict.ask(this.index, to)) return;
    stopTween();
    if (to - this.index > 240) this.goTo(to - 240);
    const from = this.index, start = this.t, length = Math.min(2600, 350 + 30 * (to - from));
    tween = { to, begin: performance.now() };
    const mine = tween, moments = this.film.moments;
    const run = (now) => {
      if (tween !== mine) return;
      const x = from + (to - from) * Math.max(0, (now - mine.begin) / length), k = Math.floor(x);
      if (k >= to) { tween = null; this.goTo(to); return; }
      const a = k === from ? start : moments[k].at;
      this.index = k;
      this.t = a + (moments[k + 1].at - a) * (x - k);
      draw();
      requestAnimationFrame(run);
    };
    requestAnimationFrame(run);
  },

  // step moves by events; forward, the messages travel until then.
  step(by) {
    this.pause();
    // A key that is faster than the picture: the step before is done at once.
    const pending = tween;
    stopTween();
    if (pending) this.goTo(pending.to);
    const to = this.index + by;
    if (to < 0 || to >= this.film.moments.length) return;
    if (by > 0 && this.predict.ask(this.index, to)) return;
    if (by < 0 || calm()) this.goTo(to); else startTween(to);
  },
  go(list, by) {
    const moments = this.film[list];
    const to = by > 0 ? moments.find((m) => m > this.index) : moments.findLast((m) => m < this.index);
    if (to !== undefined && by > 0 && this.predict.ask(this.index, to)) return;
    if (to !== undefined) this.seek(to);
    else say(by > 0 ? 'There is no later one in this film.' : 'There is no earlier one.');
  },

  toggle() { if (this.playing) this.pause(); else this.start(); },
  start() {
    stopTween();
    if (this.t >= this.film.end) { this.index = 0; this.t = 0; }
    this.playing = true;
    last = 0;
    requestAnimationFrame(tick);
    draw();
  },
  pause() { if (this.playing) { this.playing = false; draw(); remember(); } },

  choose(what, from, ev) {
    stopTween(); // the moment must not change under the menu
    this.selected = what;
    this.menu.open(what, from, ev);
    showTab('inspector');
    draw();
  },

  // act does something now: what was done later is taken back, and the film is
  // played again. It returns whether that worked.
  async act(...deeds) {
    this.pause();
    this.tour.end();
    const m = this.film.moments[this.index];
    const at = deeds[0].at ?? (m.half ? m.step : m.step + 1);
    // Deeds without events of their own leave the moment as it is.
    const same = m.half || deeds[0].at !== undefined || (stayed.film === this.film && stayed.index === this.index && stayed.at === at);
    const kept = (this.script.deeds || []).filter((d) => d.at < at || (same && d.at === at));
    const gone = (this.script.deeds || []).length - kept.length;
    const time = Math.round(m.at);
    const script = { ...this.script, steps: Math.min(MOST, Math.max(this.script.steps || 0, at + MORE)), deeds: [...kept, ...deeds.map((d) => ({ at, ...(time && { time }), ...d }))] };
    const ok = await load(script, { step: m.step, after: at });
    if (!ok) return false;
    stayed = { film: this.film, index: this.index, at };
    const failed = this.film.outcomes.slice(-deeds.length).find((o) => !o.applied);
    if (failed) say(`That did not apply: ${failed.why}.`);
    else if (gone) say(`This is a fork: ${gone} later ${gone === 1 ? 'deed was' : 'deeds were'} taken back.`);
    showTab('deeds');
    return true;
  },
  fillPickers,

  // endStanding ends what a story goes on doing, at the moment of the first deed.
  async endStanding(what) {
    const [first] = this.script.deeds;
    const deed = { at: first.at, ...(first.time && { time: first.time }), do: what };
    await load({ ...this.script, deeds: [deed, ...this.script.deeds] }, { step: this.film.moments[this.index].step });
  },
  // edit puts another deed in the place of one. The others stay, in the order of their
  // steps.
  async edit(i, deed) {
    this.pause();
    this.tour.end();
    const deeds = this.script.deeds.map((d, k) => (k === i ? deed : d)).sort((a, b) => a.at - b.at);
    const script = { ...this.script, deeds, steps: Math.min(MOST, Math.max(this.script.steps || 0, deed.at + MORE)) };
    if (await load(script, { step: deed.at - 1, after: deed.at })) document.querySelectorAll('#deeds .change')[deeds.indexOf(deed)]?.focus();
  },
  async undo(i) {
    const script = { ...this.script, deeds: this.script.deeds.filter((_, k) => k !== i) };
    if (!script.deeds.length) {
      delete script.deeds;
      if (script.story) delete script.steps; // the story ends by itself
    }
    await load(script, { step: this.film.moments[this.index].step });
  },
};

// MORE is how many steps a film goes on after a deed; MOST is the engine's limit.
const MORE = 2500, MOST = 200_000;

let views = [];
let stayed = {};
let last = 0, tween = null, remembering = 0;

const draw = () => { app.redraw(); caption(); };

function tick(now) {
  if (!app.playing) return;
  if (last && !app.held) {
    const real = Math.min(100, now - last) * 1e6;
    let by = real * app.speed;
    const f = app.film, next = f.moments[app.index + 1];
    if (app.brisk && next) {
      const gap = next.at - f.moments[app.index].at;
      // A quiet gap takes half a second at most.
      if (gap > 0 && !f.flights(app.index, app.t).length && !app.compare.busy(app.t)) by = Math.max(by, real / 5e8 * gap);
    }
    app.t = Math.min(f.end, app.t + by);
    if (app.brisk && next && app.t > next.at && app.speed < 0.05) app.t = next.at;
    const reached = Math.max(app.index, f.momentAt(app.t));
    if (app.predict.next(app.index, reached)) { app.predict.ask(app.index, reached); return; }
    app.index = reached;
    if (app.t >= f.end) { app.playing = false; remember(); }
    draw();
  }
  last = now;
  if (app.playing) requestAnimationFrame(tick);
}

function startTween(to) {
  const from = app.t, end = app.film.moments[to].at;
  tween = { to, begin: performance.now() };
  const run = (now) => {
    if (!tween || tween.to !== to) return;
    const p = Math.min(1, (now - tween.begin) / 260);
    if (p >= 1) { tween = null; app.goTo(to); return; }
    app.t = from + (end - from) * Math.max(0, p);
    app.redraw();
    requestAnimationFrame(run);
  };
  requestAnimationFrame(run);
}
function stopTween() { tween = null; }

function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => { if (app.film && !app.real) link.show(app.script, link.mark(app.film.moments[app.index]), app.tour.query()); }, 150);
}

// caption says in words what happens at this moment.
let captioned = -1, captionedFilm = null;
function caption() {
  const f = app.film;
  if (!f || (captioned === app.index && captionedFilm === f)) return;
  captioned = app.index; captionedFilm = f;
  const box = $('caption');
  const verdict = $('verdict'), ended = app.index >= f.moments.length - 1;
  verdict.hidden = !ended || (app.real && !f.verdict);
  const all = happens(f, app.index, !verdict.hidden);
  box.replaceChildren(...all.slice(0, 3).map((t) => h('span', {}, t)), all.length > 3 ? h('span', { class: 'more' }, `and ${all.length - 3} more`) : '');
  if (verdict.hidden) return;
  verdict.className = f.verdict ? 'broken' : 'fine';
  if (f.verdict) {
    const [first, ...table] = f.verdict.replaceAll(/client 1000(\d{3})\b/g, (_, n) => client(1_000_000 + Number(n))).replaceAll(/ 1000(\d{3}) /g, (_, n) => ` you ${Number(n)} `.padEnd(9)).split('\n');
    verdict.replaceChildren(h('b', {}, 'It broke. '), first, table.length ? h('pre', { tabindex: '0', 'aria-label': 'The operations' }, table.join('\n')) : '');
    return;
  }
  const survived = f.events.some((e) => e.kind === 'verdict');
  // Servers without timers do nothing by themselves.
  const idle = f.moments.length === 1 && !survived;
  verdict.replaceChildren(h('b', {}, idle ? 'Nothing happens until a client asks for something. ' : f.limit && !survived ? `The film ends here: ${f.limit}. ` : 'The film ends here. '),
    idle ? '' : survived ? `${app.stage.stage} survives ${f.script.story || 'this'}.` : f.limit ? 'Nothing broke so far. ' : 'Nothing broke.');
  if (idle) verdict.append(h('button', { type: 'button', onclick: (e) => app.menu.open({ type: 'cluster' }, e.target, e) }, 'Send a request…'));
  else if (f.limit && f.steps < MOST) verdict.append(h('button', { type: 'button', onclick: () => load({ ...app.script, steps: Math.min(MOST, Math.max(2 * f.steps, MORE)) }, { step: f.moments[f.moments.length - 1].step }) }, 'Play on'));
}

let saying = 0;
function say(text, stay) {
  $('say').textContent = text;
  $('say').hidden = !text;
  clearTimeout(saying);
  if (!stay) saying = setTimeout(() => { $('say').hidden = true; }, 6000);
}

async function load(script, where = {}) {
  document.body.classList.add('loading');
  let film;
  try { film = await fetchFilm(script); } catch (err) {
    say(`The film cannot be played: ${err.message}`, true);
    return false;
  } finally { document.body.classList.remove('loading'); }
  show(film, script, where);
  link.show(script, where.step === undefined ? '' : link.mark(film.moments[app.index]), app.tour.query());
  return true;
}

function show(film, script, where) {
  app.playing = false;
  stopTween();
  app.script = script;
  app.film = film;
  if (app.selected?.type === 'message') app.selected = null;
  if (app.selected?.type === 'server' && !film.ids.includes(app.selected.id)) app.selected = null;
  let index = where.step === undefined ? 0 : film.momentOfStep(where.step);
  while (where.step !== undefined && film.moments[index].half && film.moments[index].step === where.step && film.moments[index + 1]?.step === where.step) index++;
  if (where.after !== undefined) {
    const next = film.moments.findIndex((m) => m.step === where.after && m.half);
    if (next >= 0) index = next;
  }
  if (where.memory && film.moments[index - 1]?.memory && film.moments[index - 1].step === where.step) index--;
  app.index = index;
  app.t = film.moments[index].at;
  for (const v of views) v.reset(film);
  if (!app.real) fillPickers();
  captioned = -1;
  draw();
  if (!app.real) app.compare.again();
}

function fillPickers() {
  const story = $('story');
  story.value = app.script.story || '';
  $('seed').value = app.script.seed?.rawJSON ?? app.script.seed ?? 0;
  const found = app.stage.stories.find((x) => x.name === app.script.story);
  const edited = (app.script.edits || []).map((name) => app.stage.edits?.find((x) => x.name === name)?.about || name);
  $('claim').textContent = $('claim').title = app.tour.running ? `Guided tour: ${app.tour.title}` : edited.length ? `The code is edited: ${edited.join(' ')}` : found ? found.claim + (found.survives ? '' : ' (this stage breaks)') : 'Free play: click a server, a link or a message, and decide what happens to it.';
}

function showTab(id) {
  for (const b of document.querySelectorAll('[role=tab]')) {
    const on = b.dataset.tab === id;
    b.setAttribute('aria-selected', on);
    b.tabIndex = on ? 0 : -1;
    $(b.dataset.tab).hidden = !on;
  }
}

function showView(id) {
  $('ring').hidden = id !== 'ring';
  $('diagram').hidden = id !== 'diagram';
  $('toggle').setAttribute('aria-pressed', id === 'diagram');
  app.redraw();
}

function keys(e) {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || !app.film) return;
  const t = e.target;
  if (document.querySelector('dialog[open]') || t.closest?.('.menu') || t.tagName === 'SELECT' || t.tagName === 'TEXTAREA' || (t.tagName === 'INPUT' && t.type !== 'range' && t.type !== 'checkbox')) return;
  const onButton = t.tagName === 'BUTTON' || t.getAttribute?.('role') === 'button' || t.type === 'checkbox' || t.tagName === 'SUMMARY';
  if (app.predict.key(e.key)) { e.preventDefault(); return; }
  switch (e.key) {
    case ' ': if (onButton) return; app.toggle(); break;
    case 'ArrowRight': if (e.shiftKey) app.go('decisions', 1); else app.step(1); break;
    case 'ArrowLeft': if (e.shiftKey) app.go('decisions', -1); else app.step(-1); break;
    case ']': app.go('leaderChanges', 1); break;
    case '[': app.go('leaderChanges', -1); break;
    case 'Home': app.seek(0); break;
    case 'End': app.seek(app.film.moments.length - 1); break;
    case 'n': case 'p': if (!app.tour.running) return; app.tour.move(e.key === 'n' ? 1 : -1); break;
    case 't': if (!app.tour.running) return; app.tour.end(true); break;
    case 'Escape': if (!app.tour.running) return; app.tour.end(); break;
    case '?': $('helping').showModal(); break;
    case 'q': app.predict.toggle(); break;
    case 'v': showView($('ring').hidden ? 'ring' : 'diagram'); break;
    default: return;
  }
  e.preventDefault();
}

async function begin() {
  app.stage = await describe();
  document.title = `${app.stage.stage} · lab`;
  $('name').textContent = app.stage.stage;
  const option = (x) => h('option', { value: x.name }, x.name + (x.survives ? '' : ' ✗'));
  $('story').append(h('option', { value: '' }, 'free play'),
    h('optgroup', { label: 'this stage survives' }, app.stage.stories.filter((x) => x.survives).map(option)),
    h('optgroup', { label: 'this stage breaks' }, app.stage.stories.filter((x) => !x.survives).map(option)));
  app.menu = makeMenu(app);
  app.source = makeSource(app);
  app.tour = makeTour($('tour'), app);
  app.compare = makeCompare(app, { bar: $('difference'), scene: $('scene2'), ring: $('ring2'), caption: $('caption2'), name: $('name2'), own: $('name1'), logbox: $('logbox2'), logs: $('logs2') });
  app.predict = makePredict($('question'), $('score'), app);
  Object.assign(app, { load, say, remember, showView, select: (what) => { app.selected = what; showTab('inspector'); } });
  views = [makeStage($('ring'), app), makeLogs($('logs'), app), makeWhy($('why'), app), makeTime($('time'), app, $('score')), makeDeeds($('deeds'), app), makeInspector($('inspector'), app), makeSpacetime($('diagram'), app), app.predict, app.compare];
  app.resetTime = () => views[3].reset(app.film);
  const fromPickers = () => {
    const seed = link.seed($('seed').value);
    if (seed === null) {
      say(`“${$('seed').value.slice(0, 40)}” is not a seed: a seed is a whole number from 0 to 18446744073709551615.`);
      fillPickers();
      return;
    }
    const script = { stage: app.stage.stage, seed };
    if ($('story').value) script.story = $('story').value; else script.steps = MORE;
    app.tour.end();
    load(script);
  };
  $('story').addEventListener('change', fromPickers);
  $('seed').addEventListener('change', fromPickers);
  $('toggle').addEventListener('click', () => showView($('ring').hidden ? 'ring' : 'diagram'));
  $('tours').addEventListener('click', (e) => app.menu.open({ type: 'tours' }, e.target, e));
  app.tours = await fetch('tours/index.json').then((r) => (r.ok ? r.json() : [])).catch(() => []);
  $('tours').hidden = !app.tours.length;
  $('cluster').addEventListener('click', (e) => app.menu.open({ type: 'cluster' }, e.target, e));
  $('help').addEventListener('click', () => $('helping').showModal());
  const copy = async () => {
    const url = location.origin + link.address(app.script, app.film ? link.mark(app.film.moments[app.index]) : '', app.tour.query());
    try { await navigator.clipboard.writeText(url); say('The link is copied. It plays the same film and opens at this moment.'); } catch { say(url, true); }
  };
  $('copy').addEventListener('click', copy);
  $('more').addEventListener('click', (e) => app.menu.list('More', (app.real ? app.real.more : (all) => all)([
    [app.predict.on ? 'Predict: switch it off' : 'Predict', 'The film stops before a decision, asks you, and keeps score (q)', () => app.predict.toggle()],
    app.compare.on ? ['Compare: end it', '', () => app.compare.end()] : ['Compare with…', 'Another stage, or edited code, under the same script', () => {
      const choices = app.compare.choices();
      if (choices.length) app.menu.list('Compare with', choices, $('more'));
      else say('The other stages are not here: start the lab in the folder of the repository.');
    }],
    ['Copy link', 'Anyone who opens it sees this moment of this run', copy],
    ['Save the picture', 'As an SVG file', () => save(document.querySelector($('ring').hidden ? '#diagram svg' : '#ring svg'), `${app.stage.stage}-step-${app.film.moments[app.index].step}.svg`)],
    ['How to read the picture', 'What the shapes mean, and the keys', () => $('helping').showModal()],
  ]), e.currentTarget, e));
  for (const b of document.querySelectorAll('[role=tab]')) {
    b.addEventListener('click', () => showTab(b.dataset.tab));
    b.addEventListener('keydown', (e) => {
      if (e.key !== 'ArrowLeft' && e.key !== 'ArrowRight') return;
      e.preventDefault(); e.stopPropagation();
      const all = [...document.querySelectorAll('[role=tab]')];
      const next = all[(all.indexOf(b) + (e.key === 'ArrowRight' ? 1 : -1) + all.length) % all.length];
      next.focus();
      showTab(next.dataset.tab);
    });
  }
  addEventListener('keydown', keys);
  // The picture stands still while a button is pressed: a click needs the same shape
  // under it from beginning to end.
  addEventListener('pointerdown', () => { app.held = true; }, true);
  const released = () => setTimeout(() => { app.held = false; }); // after the click
  addEventListener('pointerup', released, true);
  addEventListener('pointercancel', released, true);
  addEventListener('blur', released);
  addEventListener('hashchange', () => (app.real || location.hash.startsWith('#real:') ? location.reload() : open()));
  app.real = makeReal(app, (film, where) => show(film, film.script, where));
  await (app.real ? app.real.begin() : open());
  const q = new URLSearchParams(location.search);
  if (q.has('compare')) await app.compare.begin(q.get('compare'), q.has('edit') ? [q.get('edit')] : []);
  if (q.has('predict')) app.predict.toggle();
  if (q.get('view') === 'diagram') showView('diagram');
  if (q.has('server')) { app.selected = { type: 'server', id: Number(q.get('server')) }; showTab('inspector'); draw(); }
}

async function open() {
  const tour = link.tour();
  if (tour && !location.hash && await app.tour.begin(tour.name, tour.at)) return;
  app.tour.end();
  let script = null;
  try { script = link.decode(location.hash); } catch { say('The link holds no script that can be read; this is free play.', true); }
  const where = link.moment(), run = script && link.run(location.hash);
  await load(script || { stage: app.stage.stage, seed: 1, steps: MORE }, where ? { step: where.step, after: where.half ? where.step : undefined, memory: where.memory } : {});
  if (!app.film) await load({ stage: app.stage.stage, seed: 1, steps: MORE });
  if (run && app.script === script && app.film.run !== run) say('This is another run than the one that the link was made from: the code here is another version, and plays the same script differently.', true);
  if (app.index === 0 && app.film?.moments.length > 1 && $('say').hidden) say(matchMedia('(hover: none)').matches ? 'New here? Tours explain a run step by step. Or touch ▶ to play; ◂ and ▸ go one event back and forward, § to a decision, ♛ to a change of leader.' : 'New here? Tours explain a run step by step. Or press space to play, an arrow key to go one event, shift and an arrow key to go to the next decision.');
}

begin().catch((err) => say(`The lab does not start: ${err.message}`, true));
