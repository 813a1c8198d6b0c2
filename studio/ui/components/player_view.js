// What is shown: the pictures of the present frame, in the present view.
const root = element.querySelector('.player');
const find = (selector) => root.querySelector(selector);
const colour = (name) => getComputedStyle(root).getPropertyValue('--' + name).trim();
const stage = find('.player-stage');
const scrub = find('.player-scrub');
const gain = find('.player-gain input');
const picks = [find('.player-first'), find('.player-second')];
const paneTemplate = find('.player-pane');
const difference = make('canvas');
const ZOOM = 4;
const BESIDE = 10;
const OVERLAID = 0.65;   // the share of what is laid over

let panes = [];          // {figure, canvas, caption, clips}
let frame = 0;
let mode = 'wipe';
let pair = [0, 1];
let divider = 0.5;
let magnified = null;    // {x, y} between 0 and 1, the same in every picture

const last = () => reading.record.num_frames - 1;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

async function load() {
  reading.cancel();
  pause();
  const value = props.value || {};
  const mine = reading = new Reading(value.clips && value.clips.length > 1 ? value : null);
  root.hidden = !mine.record;
  delete root.dataset.ready;
  if (!mine.record) return;
  say('Opening the clips…');
  frame = 0;
  enable(false);
  try {
    await mine.open((share) => say('Reading the clips: ' + Math.round(100 * share) + ' %'));
    mine.claim();
  } catch (error) {
    if (!mine.cancelled) say(error.message, 'error');
    mine.cancel();
    return;
  }
  mine.ready = true;
  say(shortfall());
  enable(true);
  scrub.max = last();
  pair = [0, 1];
  offerOverlay(!!mine.record.overlay);
  for (const pick of picks) pick.replaceChildren(...mine.clips.map((clip, i) => new Option(clip.title, i)));
  buildStrips();
  arrange();
  root.dataset.ready = mine.kept ? 'kept' : 'sought';
  if (!matchMedia('(prefers-reduced-motion: reduce)').matches) play();
}

// Maps are painted on black, so they can be laid over what they are of; then that is how they are shown first.
function offerOverlay(on) {
  const button = find('[data-mode="overlay"]');
  if (on && button.hidden) mode = 'overlay';
  if (!on && mode === 'overlay') mode = 'wipe';
  button.hidden = find('.player-overlay-key').hidden = !on;
}

function shortfall() {
  const short = reading.clips.filter((clip) => clip.count < reading.record.num_frames);
  return short.map((clip) => clip.title + ' has ' + clip.count + ' of ' + reading.record.num_frames + ' frames: its last one stays.').join(' ');
}

function say(words, tone) {
  const status = find('.player-status');
  status.textContent = words;
  status.dataset.tone = tone || '';
}

function enable(on) {
  root.querySelectorAll('button, select, input').forEach((control) => { control.disabled = !on; });
}

async function show(index) {
  const mine = reading;
  if (!mine.ready) return;
  frame = clamp(index, 0, last());
  if (mine.kept) {
    mine.turnTo(frame);
    draw();
    return;
  }
  if (mine.seeking) return;
  mine.seeking = true;
  try {
    for (let drawn = -1; drawn !== frame;) {
      const asked = frame;
      await mine.seek(asked);
      drawn = asked;
      draw(asked);
    }
  } catch (error) {
    if (!mine.cancelled) say(error.message, 'error');
  } finally {
    mine.seeking = false;
  }
}

function draw(shown = frame) {
  if (!reading.ready) return;
  if (mode === 'difference') subtract();
  for (const pane of panes) paint(pane);
  scrub.value = shown;
  scrub.style.setProperty('--played', (last() ? 100 * shown / last() : 0) + '%');
  scrub.setAttribute('aria-valuetext', 'Frame ' + (shown + 1) + ' of ' + reading.record.num_frames);
  find('.player-clock').textContent = 'Frame ' + (shown + 1) + ' of ' + reading.record.num_frames + ' · ' + (shown / reading.record.fps).toFixed(2) + ' s';
  for (const strip of strips) {
    strip.head.style.left = across(shown);
    strip.now.textContent = figure(strip.scores, shown);
  }
}

// |first − second| times the gain, at the clips' own size. The canvas doubles itself: exact, and saturating at white.
function subtract() {
  const [first, second] = pair.map((i) => reading.clips[i]);
  difference.width = Math.max(first.width, second.width);
  difference.height = Math.max(first.height, second.height);
  const context = difference.getContext('2d');
  context.drawImage(first.picture, 0, 0, difference.width, difference.height);
  context.globalCompositeOperation = 'difference';
  context.drawImage(second.picture, 0, 0, difference.width, difference.height);
  context.globalCompositeOperation = 'lighter';
  for (let i = 0; i < Number(gain.value); i++) context.drawImage(difference, 0, 0);
}

function paint(pane) {
  const {canvas} = pane;
  const context = canvas.getContext('2d');
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = 'high';
  layers(context, pane);
  if (magnified) {
    const [x, y] = [magnified.x * canvas.width, magnified.y * canvas.height];
    const radius = 0.24 * Math.min(canvas.width, canvas.height);
    context.save();
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.clip();
    context.translate(x * (1 - ZOOM), y * (1 - ZOOM));
    context.scale(ZOOM, ZOOM);
    context.imageSmoothingEnabled = false;
    layers(context, pane, ZOOM);
    context.restore();
    ring(context, x, y, radius);
  }
  canvas.dataset.frames = pane.clips.map((i) => reading.clips[i].at).join(' ');
}

function layers(context, pane, zoom = 1) {
  const {width, height} = pane.canvas;
  if (mode === 'difference') {
    context.drawImage(difference, 0, 0, width, height);
    return;
  }
  context.drawImage(reading.clips[pane.clips[0]].picture, 0, 0, width, height);
  if (mode === 'overlay') overlay(context, reading.clips[pane.clips[1]].picture, width, height);
  if (mode !== 'wipe') return;
  const edge = Math.round(divider * width);
  context.save();
  context.beginPath();
  context.rect(edge, 0, width - edge, height);
  context.clip();
  context.drawImage(reading.clips[pane.clips[1]].picture, 0, 0, width, height);
  context.restore();
  if (edge <= 0 || edge >= width) return;
  const dot = width / parseFloat(pane.canvas.style.width) / zoom;
  context.fillStyle = `rgba(${colour('veil')}, .5)`;
  context.fillRect(edge - 2 * dot, 0, 4 * dot, height);
  context.fillStyle = colour('white');
  context.fillRect(edge - dot, 0, 2 * dot, height);
}

// The first is darkened a little, and the second added: black lets the first through.
function overlay(context, picture, width, height) {
  context.save();
  context.globalAlpha = OVERLAID / 2;
  context.fillStyle = `rgb(${colour('veil')})`;
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = 'lighter';
  context.globalAlpha = OVERLAID;
  context.drawImage(picture, 0, 0, width, height);
  context.restore();
}

function ring(context, x, y, radius) {
  for (const [width, style] of [[5, `rgba(${colour('veil')}, .6)`], [2, colour('white')]]) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = style;
    context.stroke();
  }
}

function name(clip) {
  const whole = make('span', 'player-name');
  whole.append(make('b', '', clip.title), ...clip.facts.map((fact) => make('span', '', fact)));
  return whole;
}

// Which pictures there are, in the present view.
function arrange() {
  if (!reading.ready) return;
  const shown = mode === 'side' ? reading.clips.map((_, i) => [i]) : [pair];
  const held = document.activeElement && document.activeElement.classList.contains('player-divider');
  panes.forEach((pane) => pane.figure.remove());
  panes = shown.map((indices) => {
    const figure = paneTemplate.cloneNode(true);
    figure.hidden = false;
    const caption = figure.querySelector('figcaption');
    const canvas = figure.querySelector('canvas');
    const titles = indices.map((i) => reading.clips[i].title);
    if (mode === 'difference') {
      caption.append(name({title: titles.join(' − '), facts: ['absolute difference, ×' + 2 ** Number(gain.value)]}));
      canvas.setAttribute('aria-label', 'Difference of ' + titles.join(' and '));
    } else {
      caption.append(...indices.map((i) => name(reading.clips[i])));
      canvas.setAttribute('aria-label', mode === 'overlay' ? titles[1] + ' laid over ' + titles[0] : titles.join(' on the left, ') + (mode === 'wipe' ? ' on the right' : ''));
    }
    const handle = figure.querySelector('.player-divider');
    handle.hidden = mode !== 'wipe';
    stage.append(figure);
    return {figure, canvas, caption, handle, clips: indices};
  });
  root.dataset.mode = mode;
  for (const {row, clip} of strips) row.toggleAttribute('data-shown', shown.flat().some((i) => reading.clips[i] === clip));
  root.querySelectorAll('[data-mode]').forEach((button) => {
    if (button !== root) button.setAttribute('aria-pressed', String(button.dataset.mode === mode));
  });
  find('.player-pair').hidden = mode === 'side';
  find('.player-gain').hidden = mode !== 'difference';
  find('.player-gain output').textContent = '×' + 2 ** Number(gain.value);
  picks.forEach((pick, i) => { pick.value = pair[i]; });
  placeDivider();
  fit();
  if (held && panes[0].handle) panes[0].handle.focus();
}

// The number of columns that gives the largest pictures in the room there is.
function fit() {
  if (!reading.ready || !stage.clientWidth) return;
  const style = getComputedStyle(stage);
  const width = Math.floor(stage.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
  const full = document.fullscreenElement === root;
  const height = full ? stage.clientHeight - 24 : clamp(0.6 * innerHeight, 240, 480);
  const shape = Math.max(...reading.clips.map((clip) => clip.width)) / Math.max(...reading.clips.map((clip) => clip.height));
  const count = panes.length;
  // Columns ascend, so that of equal sizes the squarer arrangement stays.
  let best = 0;
  let beside = 1;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const room = (height - BESIDE * (rows - 1)) / rows - 42;
    const fits = Math.min((width - BESIDE * (columns - 1)) / columns, room * shape);
    if (fits > best + 0.5) [best, beside] = [fits, columns];
  }
  stage.style.gridTemplateColumns = 'repeat(' + beside + ', auto)';
  const across = Math.max(40, Math.floor(best));
  const down = Math.max(1, Math.round(across / shape));
  const dots = devicePixelRatio || 1;
  for (const {figure, canvas} of panes) {
    figure.style.width = across + 'px';
    canvas.style.width = across + 'px';
    canvas.style.height = down + 'px';
    canvas.width = Math.round(across * dots);
    canvas.height = Math.round(down * dots);
  }
  draw();
}

function placeDivider() {
  for (const {handle} of panes) {
    handle.style.left = 100 * divider + '%';
    handle.setAttribute('aria-valuenow', Math.round(100 * divider));
    handle.setAttribute('aria-valuetext', Math.round(100 * divider) + ' % ' + reading.clips[pair[0]].title);
  }
}

function moveDivider(to) {
  divider = clamp(to, 0, 1);
  placeDivider();
  draw();
}

function setMode(to) {
  mode = to;
  arrange();
}

// Whoever picks for one side what the other has gets the two exchanged.
function choose(side, index) {
  if (pair[1 - side] === index) pair = [pair[1], pair[0]];
  else pair = side ? [pair[0], index] : [index, pair[1]];
  arrange();
}
