// A guided tour: captions at moments of a film. It ends where somebody goes on
// alone.

import { h, calm } from './dom.js';

export function makeTour(root, app) {
  let tour = null, at = 0;

  async function fetchTour(name) {
    const known = app.tours.find((x) => x.name === name);
    if (!known) throw new Error('there is no such tour');
    if (known.stage !== app.stage.stage) throw new Error(`it is a tour of ${known.stage}: go run ./${known.stage} lab --tour ${name}`);
    const answer = await fetch(`tours/${name}.json`);
    if (!answer.ok) throw new Error(`the engine answered ${answer.status}`);
    return { ...await answer.json(), name };
  }

  const button = (cls, label, title, act, off) => h('button', { type: 'button', class: cls, title, onclick: act, disabled: off }, label);

  function draw() {
    root.hidden = !tour;
    document.body.classList.toggle('touring', !!tour);
    if (!tour) return;
    const stop = tour.stops[at], last = at === tour.stops.length - 1;
    const focused = root.contains(document.activeElement) ? document.activeElement.className : '';
    root.replaceChildren(
      h('div', { class: 'tour-top' }, h('h2', {}, tour.title), h('button', { type: 'button', class: 'close', 'aria-label': 'End the tour', title: 'End the tour (Escape)', onclick: () => end() }, '×')),
      h('div', { class: 'tour-text', tabindex: '0', role: 'status' }, at === 0 && h('p', { class: 'about' }, tour.about), h('p', {}, stop.caption, stop.section && h('span', { class: 'section' }, ' ' + stop.section))),
      h('div', { class: 'tour-keys' },
        button('back', '◂ Back', 'Previous step (p)', () => move(-1), at === 0), h('span', { class: 'count' }, `${at + 1} of ${tour.stops.length}`),
        last ? button('next go', 'All tours', 'Choose another tour', (e) => app.menu.open({ type: 'tours' }, e.target, e)) : button('next go', 'Next ▸', 'Next step (n)', () => move(1)),
        button('try', 'Try it yourself', 'End the tour here, and decide what happens now (t)', () => end(true))));
    if (focused) root.querySelector('.' + focused.split(' ')[0] + ':not(:disabled)')?.focus({ preventScroll: true });
    else if (!root.contains(document.activeElement)) root.querySelector('.next')?.focus({ preventScroll: true });
  }

  // momentOf is the moment of the event at which a stop is.
  function momentOf({ at: { step, kind, nth } }) {
    const f = app.film;
    let n = 0;
    const i = f.events.findIndex((e) => (e.step || 0) === step && e.kind === kind && ++n === nth);
    return i < 0 ? f.momentOfStep(step) : f.momentOfEvent[i];
  }

  function arrive(travel) {
    const stop = tour.stops[at], to = momentOf(stop);
    app.showView(stop.view || 'ring');
    if (stop.select) app.select({ type: 'server', id: stop.select });
    draw();
    if (travel && !calm() && to > app.index) app.travel(to); else app.seek(to);
  }

  function move(by) {
    if (!tour || at + by < 0 || at + by >= tour.stops.length) return;
    at += by;
    arrive(by > 0);
  }

  // end leaves the film at its moment; what is done then is a fork of it.
  function end(alone) {
    if (!tour) return;
    tour = null;
    draw();
    app.fillPickers();
    app.remember();
    if (alone) {
      app.say('The tour has ended here. Click a server, a link or a message: what you do now happens from this moment on.');
      app.menu.open({ type: 'cluster' }, document.getElementById('cluster'));
    }
  }

  return {
    get running() { return tour !== null; },
    get title() { return tour?.title; },
    // query is the part of an address that names this step of the tour.
    query: () => (tour ? { tour: tour.name, at: at + 1 } : null),
    move, end,
    async begin(name, step) {
      let t;
      try { t = await fetchTour(name); } catch (err) { app.say(`The tour “${name.slice(0, 60)}” cannot begin: ${err.message}.`, true); return false; }
      tour = null;
      app.compare.end();
      if (!await app.load(t.script)) return false;
      tour = t;
      at = Math.max(0, Math.min((step || 1) - 1, t.stops.length - 1));
      app.fillPickers();
      arrive(false);
      app.remember();
      return true;
    },
  };
}
