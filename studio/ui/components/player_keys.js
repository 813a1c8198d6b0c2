// The clock, and what pointer and keys may ask for.
const speed = find('.player-speed');
let playing = null;      // {from, since}: the frame and the moment at which the clock was set

function tick(now) {
  if (!playing) return;
  if (!root.isConnected) return pause();
  requestAnimationFrame(tick);
  // Another tab of the page is open: the clock waits.
  if (!root.offsetParent && document.fullscreenElement !== root) { playing = {from: frame, since: now}; return; }
  let to = playing.from + Math.floor(Math.max(0, now - playing.since) / 1000 * reading.record.fps * Number(speed.value));
  if (to > last()) {
    if (!looped()) { pause(); show(last()); return; }
    to %= reading.record.num_frames;
  }
  if (to !== frame) show(to);
}

function play() {
  if (!reading.ready || playing) return;
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

// The same part of every clip's present frame, side by side, with its title and facts: white paper, whatever the page's
// mode. A part is {left, top, width, height} of a clip's own pixels.
function save(name, partOf, least, note) {
  const parts = reading.clips.map(partOf);
  const wide = Math.max(...parts.map((part) => part.width));
  const tall = Math.max(...parts.map((part) => part.height));
  const scale = Math.max(1, Math.ceil(least / wide));
  const [width, height, gap, head] = [wide * scale, tall * scale, 16, 46];
  const canvas = make('canvas');
  canvas.width = reading.clips.length * (width + gap) + gap;
  canvas.height = head + height + 34;
  const context = canvas.getContext('2d');
  const family = getComputedStyle(root).fontFamily;
  context.fillStyle = colour('print-paper');
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  reading.clips.forEach((clip, i) => {
    const left = gap + i * (width + gap);
    const part = parts[i];
    context.fillStyle = colour('print-ink');
    context.font = 'bold 15px ' + family;
    context.fillText(cut(context, clip.title, width), left, 21);
    context.fillStyle = colour('print-soft');
    context.font = '12px ' + family;
    context.fillText(cut(context, clip.facts.join(' · '), width), left, 38);
    context.drawImage(clip.picture, part.left, part.top, part.width, part.height, left, head, width, height);
  });
  context.fillStyle = colour('print-soft');
  context.font = '12px ' + family;
  context.fillText(find('.player-clock').textContent + note(parts[0]), gap, head + height + 22);
  const number = String(frame + 1).padStart(3, '0');
  canvas.toBlob((blob) => {
    const link = make('a');
    link.href = URL.createObjectURL(blob);
    link.download = name + '-frame-' + number + '.png';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, 'image/png');
}

function picture() {
  save('comparison', ({width, height}) => ({left: 0, top: 0, width, height}), 300, () => '');
}

// A quarter of the picture's width and height around the magnifier, at whole pixels, and wholly within the picture.
function crop() {
  if (!magnified) {
    magnify();
    say('Move the magnifier to what is to be seen, and save the crop then.');
    return;
  }
  say(shortfall());
  const along = (size, place) => {
    const length = Math.max(1, Math.round(size / 4));
    return [clamp(Math.round(place * size - length / 2), 0, size - length), length];
  };
  const partOf = (clip) => {
    const [left, width] = along(clip.width, magnified.x);
    const [top, height] = along(clip.height, magnified.y);
    return {left, top, width, height};
  };
  save('crop', partOf, 480, ({left, top, width, height}) => ' · ' + width + '×' + height + ' pixels at ' + left + ', ' + top);
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
  crop,
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
  4: () => { if (reading.record.overlay) setMode('overlay'); },
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
  c: crop,
  f: fullScreen,
  '?': toggleKeys,
};

root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button || !reading.ready) return;
  if (button.dataset.mode) setMode(button.dataset.mode);
  else if (button.dataset.do) DEEDS[button.dataset.do]();
  else if (button.classList.contains('player-swap')) choose(0, pair[1]);
});

root.addEventListener('keydown', (event) => {
  if (!reading.ready || event.ctrlKey || event.metaKey || event.altKey || event.target.closest('select')) return;
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
  const place = reading.ready && placeOf(event);
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
