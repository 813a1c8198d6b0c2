// Nothing here plays a video. Each clip's frames are read once, by seeking, into bitmaps; one clock says which frame it
// is, and every picture is drawn from it in the same task. So the pictures cannot drift apart. Clips too large for the
// bitmaps' room are sought anew for every frame, and drawn once all of them have arrived: slower, and still together.
const root = element.querySelector('.player');
const find = (selector) => root.querySelector(selector);
const colour = (name) => getComputedStyle(root).getPropertyValue('--' + name).trim();
const stage = find('.player-stage');
const scrub = find('.player-scrub');
const status = find('.player-status');
const gain = find('.player-gain input');
const speed = find('.player-speed');
const picks = [find('.player-first'), find('.player-second')];
const paneTemplate = find('.player-pane');
const stripTemplate = find('.player-strip');
const difference = make('canvas');
const ZOOM = 4;
const BESIDE = 10;
const PATIENCE_MS = 120;

let record = null;
let clips = [];          // {title, facts, scores, width, height, count, bitmaps, picture, at, video, url}
let panes = [];          // {figure, canvas, caption, clips}
let strips = [];
let loading = 0;         // grows with each value, so that what an older one still awaits is dropped
let ready = false;
let frame = 0;
let mode = 'wipe';
let pair = [0, 1];
let divider = 0.5;
let magnified = null;    // {x, y} between 0 and 1, the same in every picture
let playing = null;      // {from, since}: the frame and the moment at which the clock was set
let busy = false;

const last = () => record.num_frames - 1;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Reading -------------------------------------------------------------------------------------------------------------

// A data: address is unpacked here: the exported page forbids itself every connection.
async function bytesOf(address) {
  if (!address.startsWith('data:')) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error('the server answered ' + answer.status);
    return answer.blob();
  }
  const comma = address.indexOf(',');
  const text = atob(address.slice(comma + 1));
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], {type: address.slice(5, comma).split(';')[0]});
}

function heard(target, good, bad) {
  return new Promise((done, fail) => {
    target.addEventListener(good, done, {once: true});
    if (bad) target.addEventListener(bad, () => fail(new Error('the browser cannot decode it')), {once: true});
  });
}

async function open(given) {
  const address = typeof given.url === 'string' ? given.url : given.url.url;
  const clip = {title: given.title, facts: given.facts || [], scores: given.scores || null, bitmaps: [], picture: null, at: 0};
  clip.url = URL.createObjectURL(await bytesOf(address));
  clip.video = make('video');
  clip.video.muted = true;
  clip.video.playsInline = true;
  clip.video.preload = 'auto';
  const data = heard(clip.video, 'loadeddata', 'error');
  clip.video.src = clip.url;
  try {
    await data;
  } catch (error) {
    letGo(clip);
    throw error;
  }
  clip.width = clip.video.videoWidth;
  clip.height = clip.video.videoHeight;
  const {duration} = clip.video;
  clip.count = Number.isFinite(duration) ? Math.max(1, Math.round(duration * record.fps)) : record.num_frames;
  return clip;
}

function close(clip) {
  clip.bitmaps.forEach((bitmap) => bitmap.close());
  if (clip.picture && !clip.bitmaps.length) clip.picture.close();
  letGo(clip);
}

function letGo(clip) {
  if (!clip.video) return;
  clip.video.removeAttribute('src');
  clip.video.load();
  URL.revokeObjectURL(clip.url);
  clip.video = null;
}

// The middle of the frame's time: its very beginning belongs, by rounding, to the frame before as often as not.
// A browser that can says which picture it then presented; that number, not the one asked for, is what is reported. The
// first it says may still be about the picture before, so it is heard until it says the one asked for.
async function read(clip, index) {
  const video = clip.video;
  const asked = Math.min(index, clip.count - 1);
  let at = null;
  let waiting = Boolean(video.requestVideoFrameCallback);
  const seen = new Promise((done) => {
    const listen = () => video.requestVideoFrameCallback((_, about) => {
      if (!waiting) return;
      at = Math.floor(about.mediaTime * record.fps + 0.01);
      if (at === asked) done();
      else listen();
    });
    if (waiting) listen();
  });
  const sought = heard(video, 'seeked', 'error');
  video.currentTime = (asked + 0.5) / record.fps;
  await sought;
  // It says nothing when the picture is the one already there, nor in a page that nobody sees.
  if (waiting && !document.hidden) await Promise.race([seen, new Promise((done) => setTimeout(done, PATIENCE_MS))]);
  waiting = false;
  const bitmap = await createImageBitmap(video);
  return {bitmap, at: at ?? asked};
}

async function load() {
  const mine = ++loading;
  pause();
  clips.forEach(close);
  clips = [];
  ready = false;
  const value = props.value || {};
  record = value.clips && value.clips.length > 1 ? value : null;
  root.hidden = !record;
  delete root.dataset.ready;
  if (!record) return;
  say('Opening the clips…');
  frame = 0;
  enable(false);
  let opened = [];
  try {
    const tried = await Promise.allSettled(record.clips.map(open));
    opened = tried.flatMap((one) => one.status === 'fulfilled' ? [one.value] : []);
    const bad = tried.findIndex((one) => one.status === 'rejected');
    if (bad >= 0) throw new Error(record.clips[bad].title + ' cannot be shown: ' + tried[bad].reason.message + '.');
    if (mine !== loading) return opened.forEach(close);
    const room = opened.reduce((sum, clip) => sum + 4 * clip.width * clip.height * Math.min(clip.count, record.num_frames), 0);
    const keep = room <= record.cache_megabytes * 1e6;
    let count = 0;
    const total = record.clips.length * record.num_frames;
    await Promise.all(opened.map(async (clip) => {
      for (let i = 0; i < (keep ? Math.min(clip.count, record.num_frames) : 1); i++) {
        const {bitmap, at} = await read(clip, i);
        if (mine !== loading) { bitmap.close(); return; }
        if (keep) {
          clip.bitmaps.push(bitmap);
          clip.numbers = [...(clip.numbers || []), at];
        }
        if (i === 0) { clip.picture = bitmap; clip.at = at; }
        if (++count % 8 === 0) say('Reading the clips: ' + Math.round(100 * count / total) + ' %');
      }
      if (keep) letGo(clip);
    }));
  } catch (error) {
    opened.forEach(close);
    if (mine === loading) say(error.message, 'error');
    return;
  }
  if (mine !== loading) return opened.forEach(close);
  clips = opened;
  ready = true;
  say(shortfall());
  enable(true);
  scrub.max = last();
  pair = [0, 1];
  fillPicks();
  buildStrips();
  arrange();
  root.dataset.ready = clips[0].bitmaps.length ? 'kept' : 'sought';
  if (!matchMedia('(prefers-reduced-motion: reduce)').matches) play();
}

function shortfall() {
  const short = clips.filter((clip) => clip.count < record.num_frames);
  return short.map((clip) => clip.title + ' has ' + clip.count + ' of ' + record.num_frames + ' frames: its last one stays.').join(' ');
}

function say(words, tone) {
  status.textContent = words;
  status.dataset.tone = tone || '';
}

function enable(on) {
  root.querySelectorAll('button, select, input').forEach((control) => { control.disabled = !on; });
}

// Showing -------------------------------------------------------------------------------------------------------------

async function show(index) {
  if (!ready) return;
  frame = clamp(index, 0, last());
  if (clips[0].bitmaps.length) {
    for (const clip of clips) {
      const i = Math.min(frame, clip.bitmaps.length - 1);
      clip.picture = clip.bitmaps[i];
      clip.at = clip.numbers[i];
    }
    draw();
    return;
  }
  if (busy) return;
  busy = true;
  const mine = loading;
  try {
    for (let drawn = -1; drawn !== frame;) {
      const asked = frame;
      const found = await Promise.all(clips.map((clip) => read(clip, asked)));
      if (mine !== loading) return found.forEach(({bitmap}) => bitmap.close());
      clips.forEach((clip, i) => {
        clip.picture.close();
        clip.picture = found[i].bitmap;
        clip.at = found[i].at;
      });
      drawn = asked;
      draw(asked);
    }
  } catch (error) {
    if (mine === loading) say(error.message, 'error');
  } finally {
    busy = false;
  }
}

function draw(shown = frame) {
  if (!ready) return;
  if (mode === 'difference') subtract();
  for (const pane of panes) paint(pane);
  scrub.value = shown;
  scrub.style.setProperty('--played', (last() ? 100 * shown / last() : 0) + '%');
  scrub.setAttribute('aria-valuetext', 'Frame ' + (shown + 1) + ' of ' + record.num_frames);
  find('.player-clock').textContent = 'Frame ' + (shown + 1) + ' of ' + record.num_frames + ' · ' + (shown / record.fps).toFixed(2) + ' s';
  for (const strip of strips) {
    strip.head.style.left = across(shown);
    strip.now.textContent = figure(strip.scores, shown);
  }
}

// |first − second| times the gain, at the clips' own size. The canvas doubles itself: exact, and saturating at white.
function subtract() {
  const [first, second] = pair.map((i) => clips[i]);
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
  canvas.dataset.frames = pane.clips.map((i) => clips[i].at).join(' ');
}

function layers(context, pane, zoom = 1) {
  const {width, height} = pane.canvas;
  if (mode === 'difference') {
    context.drawImage(difference, 0, 0, width, height);
    return;
  }
  context.drawImage(clips[pane.clips[0]].picture, 0, 0, width, height);
  if (mode !== 'wipe') return;
  const edge = Math.round(divider * width);
  context.save();
  context.beginPath();
  context.rect(edge, 0, width - edge, height);
  context.clip();
  context.drawImage(clips[pane.clips[1]].picture, 0, 0, width, height);
  context.restore();
  if (edge <= 0 || edge >= width) return;
  const dot = width / parseFloat(pane.canvas.style.width) / zoom;
  context.fillStyle = `rgba(${colour('veil')}, .5)`;
  context.fillRect(edge - 2 * dot, 0, 4 * dot, height);
  context.fillStyle = colour('white');
  context.fillRect(edge - dot, 0, 2 * dot, height);
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

// Panes ---------------------------------------------------------------------------------------------------------------

function name(clip) {
  const whole = make('span', 'player-name');
  whole.append(make('b', '', clip.title), ...clip.facts.map((fact) => make('span', '', fact)));
  return whole;
}

// Which pictures there are, in the present view.
function arrange() {
  if (!ready) return;
  const shown = mode === 'side' ? clips.map((_, i) => [i]) : [pair];
  const held = document.activeElement && document.activeElement.classList.contains('player-divider');
  panes.forEach((pane) => pane.figure.remove());
  panes = shown.map((indices) => {
    const figure = paneTemplate.cloneNode(true);
    figure.hidden = false;
    const caption = figure.querySelector('figcaption');
    const canvas = figure.querySelector('canvas');
    const titles = indices.map((i) => clips[i].title);
    if (mode === 'difference') {
      caption.append(name({title: titles.join(' − '), facts: ['absolute difference, ×' + 2 ** Number(gain.value)]}));
      canvas.setAttribute('aria-label', 'Difference of ' + titles.join(' and '));
    } else {
      caption.append(...indices.map((i) => name(clips[i])));
      canvas.setAttribute('aria-label', titles.join(' on the left, ') + (mode === 'wipe' ? ' on the right' : ''));
    }
    const handle = figure.querySelector('.player-divider');
    handle.hidden = mode !== 'wipe';
    stage.append(figure);
    return {figure, canvas, caption, handle, clips: indices};
  });
  root.dataset.mode = mode;
  for (const {row, clip} of strips) row.toggleAttribute('data-shown', shown.flat().some((i) => clips[i] === clip));
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
  if (!ready || !stage.clientWidth) return;
  const style = getComputedStyle(stage);
  const width = Math.floor(stage.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
  const full = document.fullscreenElement === root;
  const height = full ? stage.clientHeight - 24 : clamp(0.6 * innerHeight, 240, 480);
  const shape = Math.max(...clips.map((clip) => clip.width)) / Math.max(...clips.map((clip) => clip.height));
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
    handle.setAttribute('aria-valuetext', Math.round(100 * divider) + ' % ' + clips[pair[0]].title);
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

function fillPicks() {
  for (const pick of picks) pick.replaceChildren(...clips.map((clip, i) => new Option(clip.title, i)));
}

// Whoever picks for one side what the other has gets the two exchanged.
function choose(side, index) {
  if (pair[1 - side] === index) pair = [pair[1], pair[0]];
  else pair = side ? [pair[0], index] : [index, pair[1]];
  arrange();
}

// Scores --------------------------------------------------------------------------------------------------------------

const across = (index) => (last() ? 100 * index / last() : 0) + '%';
const isFigure = (value) => typeof value === 'number';

// Four digits, always: a number that changes its length makes the line jump while the clips play.
const rounded = (value) => value === 0 ? '0' : value.toPrecision(4).replace(/e.*/, '') === value.toPrecision(4) ? value.toPrecision(4) : value.toExponential(2);

function figure(scores, index) {
  const value = scores.values[index];
  const words = value === 'inf' ? '∞' : isFigure(value) ? rounded(value) : '–';
  return scores.name + ' ' + words + (scores.unit && words !== '–' ? ' ' + scores.unit : '');
}

function worst(scores) {
  let found = -1;
  scores.values.forEach((value, i) => {
    if (!isFigure(value)) return;
    if (found < 0 || (scores.higher_is_better ? value < scores.values[found] : value > scores.values[found])) found = i;
  });
  return found;
}

function buildStrips() {
  root.querySelectorAll('.player-strip').forEach((strip) => { if (strip !== stripTemplate) strip.remove(); });
  strips = [];
  const scored = clips.filter((clip) => clip.scores);
  find('.player-strips').hidden = !scored.length;
  for (const clip of scored) {
    const scores = clip.scores;
    const row = stripTemplate.cloneNode(true);
    row.hidden = false;
    // One scale for all clips that are measured with the same name: their heights may be compared.
    const all = scored.filter((other) => other.scores.name === scores.name).flatMap((other) => other.scores.values.filter(isFigure));
    let [low, high] = [Math.min(...all), Math.max(...all)];
    if (!all.length) [low, high] = [0, 1];
    const plain = high > low;
    const spare = plain ? 0.12 * (high - low) : 1;
    const height = (value) => value === 'inf' ? 0.02 : 1 - (value - low + spare) / (high - low + 2 * spare);
    const x = (i) => last() ? i / last() : 0;
    let line = '';
    let area = '';
    let run = [];
    const flush = () => {
      if (run.length) {
        const points = run.map((i) => x(i).toFixed(5) + ' ' + height(scores.values[i]).toFixed(5));
        if (points.length === 1) points.push(points[0]);
        line += 'M' + points.join('L');
        area += 'M' + x(run[0]) + ' 1L' + points.join('L') + 'L' + x(run[run.length - 1]) + ' 1Z';
      }
      run = [];
    };
    scores.values.forEach((value, i) => { if (value == null) flush(); else run.push(i); });
    flush();
    row.querySelector('.player-line').setAttribute('d', line);
    row.querySelector('.player-area').setAttribute('d', area);
    row.querySelector('.player-strip-title').textContent = clip.title;
    const at = worst(scores);
    const button = row.querySelector('.player-worst');
    button.disabled = at < 0;
    button.setAttribute('aria-label', 'Worst frame of ' + clip.title);
    button.title = at < 0 ? 'There is no figure' : 'Frame ' + (at + 1) + ' (W)';
    row.querySelector('.player-strip-ends').textContent = at < 0 ? '' : 'worst ' + rounded(scores.values[at]) + ' at frame ' + (at + 1);
    button.addEventListener('click', () => jump(at));
    const mark = row.querySelector('.player-mark');
    mark.hidden = at < 0;
    if (at >= 0) {
      mark.style.left = across(at);
      mark.style.top = 100 * height(scores.values[at]) + '%';
    }
    const plot = row.querySelector('.player-plot');
    const to = (event) => {
      const box = plot.getBoundingClientRect();
      jump(Math.round(clamp((event.clientX - box.left) / box.width, 0, 1) * last()));
    };
    plot.addEventListener('pointerdown', (event) => { plot.setPointerCapture(event.pointerId); to(event); });
    plot.addEventListener('pointermove', (event) => { if (event.buttons) to(event); });
    find('.player-strips').append(row);
    strips.push({row, clip, scores, head: row.querySelector('.player-head'), now: row.querySelector('.player-strip-now')});
  }
}

function jumpToWorst() {
  const scores = clips[pair[1]].scores || clips[pair[0]].scores;
  const at = scores ? worst(scores) : -1;
  if (at >= 0) jump(at);
}

// The clock -----------------------------------------------------------------------------------------------------------

function tick(now) {
  if (!playing) return;
  if (!root.isConnected) return pause();
  requestAnimationFrame(tick);
  // Another tab of the page is open: the clock waits.
  if (!root.offsetParent && document.fullscreenElement !== root) { playing = {from: frame, since: now}; return; }
  let to = playing.from + Math.floor(Math.max(0, now - playing.since) / 1000 * record.fps * Number(speed.value));
  if (to > last()) {
    if (!looped()) { pause(); show(last()); return; }
    to %= record.num_frames;
  }
  if (to !== frame) show(to);
}

function play() {
  if (!ready || playing) return;
  const from = frame >= last() && !looped() ? 0 : frame;
  if (from !== frame) show(from);
  playing = {from, since: performance.now()};
  root.dataset.playing = '';
  find('.player-play').setAttribute('aria-label', 'Pause');
  requestAnimationFrame(tick);
}

function pause() {
  playing = null;
  delete root.dataset.playing;
  find('.player-play').setAttribute('aria-label', 'Play');
}

const looped = () => find('[data-do="loop"]').getAttribute('aria-pressed') === 'true';

function jump(to) {
  pause();
  show(to);
}

function setSpeed(index) {
  speed.selectedIndex = clamp(index, 0, speed.options.length - 1);
  if (playing) playing = {from: frame, since: performance.now()};
}

// Tools ---------------------------------------------------------------------------------------------------------------

function press(button, on) {
  button.setAttribute('aria-pressed', String(on));
}

function magnify() {
  magnified = magnified ? null : {x: 0.5, y: 0.5};
  press(find('[data-do="magnify"]'), Boolean(magnified));
  root.toggleAttribute('data-magnify', Boolean(magnified));
  draw();
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else root.requestFullscreen().catch(() => say('The browser refuses full screen here.'));
}

function cut(context, words, width) {
  if (context.measureText(words).width <= width) return words;
  let kept = words;
  while (kept && context.measureText(kept + '…').width > width) kept = kept.slice(0, -1);
  return kept + '…';
}

// Every clip's present frame, side by side, with its title and facts: white paper, whatever the page's mode.
function picture() {
  const wide = Math.max(...clips.map((clip) => clip.width));
  const tall = Math.max(...clips.map((clip) => clip.height));
  const scale = Math.max(1, Math.ceil(300 / wide));
  const [width, height, gap, head] = [wide * scale, tall * scale, 16, 46];
  const canvas = make('canvas');
  canvas.width = clips.length * (width + gap) + gap;
  canvas.height = head + height + 34;
  const context = canvas.getContext('2d');
  const family = getComputedStyle(root).fontFamily;
  context.fillStyle = colour('print-paper');
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  clips.forEach((clip, i) => {
    const left = gap + i * (width + gap);
    context.fillStyle = colour('print-ink');
    context.font = 'bold 15px ' + family;
    context.fillText(cut(context, clip.title, width), left, 21);
    context.fillStyle = colour('print-soft');
    context.font = '12px ' + family;
    context.fillText(cut(context, clip.facts.join(' · '), width), left, 38);
    context.drawImage(clip.picture, left, head, width, height);
  });
  context.fillStyle = colour('print-soft');
  context.font = '12px ' + family;
  context.fillText(find('.player-clock').textContent, gap, head + height + 22);
  const number = String(frame + 1).padStart(3, '0');
  canvas.toBlob((blob) => {
    const link = make('a');
    link.href = URL.createObjectURL(blob);
    link.download = 'comparison-frame-' + number + '.png';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, 'image/png');
}

function toggleKeys() {
  const keys = find('.player-keys');
  keys.hidden = !keys.hidden;
  find('[data-do="keys"]').setAttribute('aria-expanded', String(!keys.hidden));
}

const DEEDS = {
  first: () => jump(0),
  back: () => jump(frame - 1),
  play: () => playing ? pause() : play(),
  forward: () => jump(frame + 1),
  last: () => jump(last()),
  loop: () => press(find('[data-do="loop"]'), !looped()),
  magnify,
  picture,
  screen: fullScreen,
  keys: toggleKeys,
};
const KEYS = {
  ' ': DEEDS.play,
  ArrowLeft: DEEDS.back,
  ArrowRight: DEEDS.forward,
  ',': DEEDS.back,
  '.': DEEDS.forward,
  Home: DEEDS.first,
  End: DEEDS.last,
  1: () => setMode('wipe'),
  2: () => setMode('side'),
  3: () => setMode('difference'),
  '[': () => moveDivider(divider - 0.02),
  ']': () => moveDivider(divider + 0.02),
  s: () => choose(0, pair[1]),
  w: jumpToWorst,
  '-': () => setSpeed(speed.selectedIndex - 1),
  '+': () => setSpeed(speed.selectedIndex + 1),
  '=': () => setSpeed(speed.selectedIndex + 1),
  l: DEEDS.loop,
  m: magnify,
  p: picture,
  f: fullScreen,
  '?': toggleKeys,
};

// Listening -----------------------------------------------------------------------------------------------------------

root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button || !ready) return;
  if (button.dataset.mode) setMode(button.dataset.mode);
  else if (button.dataset.do) DEEDS[button.dataset.do]();
  else if (button.classList.contains('player-swap')) choose(0, pair[1]);
});

root.addEventListener('keydown', (event) => {
  if (!ready || event.ctrlKey || event.metaKey || event.altKey || event.target.closest('select')) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[key];
  const atDivider = event.target.closest('.player-divider');
  const atRange = event.target.matches('input[type="range"]');
  if (moves && event.shiftKey && magnified) {
    magnified = {x: clamp(magnified.x + 0.02 * moves[0], 0, 1), y: clamp(magnified.y + 0.02 * moves[1], 0, 1)};
    draw();
  } else if (atDivider && moves) {
    moveDivider(divider + 0.02 * (moves[0] - moves[1]));
  } else if (atDivider && (key === 'Home' || key === 'End')) {
    moveDivider(key === 'Home' ? 0 : 1);
  } else if ((atRange && (moves || key === 'Home' || key === 'End')) || (key === ' ' && event.target.closest('button'))) {
    return;
  } else if (KEYS[key]) {
    KEYS[key]();
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
});

function placeOf(event) {
  const picture = event.target.closest('.player-picture');
  if (!picture) return null;
  const box = picture.getBoundingClientRect();
  return {x: clamp((event.clientX - box.left) / box.width, 0, 1), y: clamp((event.clientY - box.top) / box.height, 0, 1)};
}

function pointed(event) {
  const place = ready && placeOf(event);
  if (!place) return;
  if (magnified && !event.target.closest('.player-divider')) { magnified = place; draw(); return; }
  if (mode === 'wipe' && event.buttons) moveDivider(place.x);
}

stage.addEventListener('pointerdown', (event) => {
  const picture = event.target.closest('.player-picture');
  if (!picture || event.button) return;
  event.target.setPointerCapture(event.pointerId);
  pointed(event);
});
stage.addEventListener('pointermove', pointed);
scrub.addEventListener('input', () => jump(Number(scrub.value)));
gain.addEventListener('input', arrange);
speed.addEventListener('change', () => setSpeed(speed.selectedIndex));
picks.forEach((pick, side) => pick.addEventListener('change', () => choose(side, Number(pick.value))));
document.addEventListener('fullscreenchange', () => {
  press(find('[data-do="screen"]'), document.fullscreenElement === root);
  requestAnimationFrame(fit);
});
let room = '';
new ResizeObserver(() => {
  const now = stage.clientWidth + (document.fullscreenElement === root ? ' ' + stage.clientHeight : '');
  if (now === room) return;
  room = now;
  fit();
}).observe(stage);
find('[data-do="screen"]').hidden = !document.fullscreenEnabled;

// What a test may ask: the frame that each picture shows, as the browser numbered it when the frame was read.
root.player = {shown: () => panes.map((pane) => pane.canvas.dataset.frames.split(' ').map(Number)), frame: () => frame};
watch('value', load);
load();
