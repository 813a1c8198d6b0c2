const root = element.querySelector('.timeline');
const plot = root.querySelector('.timeline-plot');
const bars = root.querySelector('.timeline-bars');
const strip = root.querySelector('.timeline-strip');
const readout = root.querySelector('.timeline-readout');
const KINDS = {c: 'computed', r: 'reused', h: 'half', x: 'extrapolated'};
const WORDS = {computed: 'computed', reused: 'reused', half: 'partly reused', extrapolated: 'extrapolated'};
let data = {};
let drawn = [];
let chosen = null;

const milliseconds = (ms) => ms >= 10000 ? (ms / 1000).toFixed(1) + ' s' : Math.round(ms) + ' ms';
const text = (selector, words) => { root.querySelector(selector).textContent = words; };

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// One column of the strip: equal neighbours become one segment, so a plain step is one element and not one per block.
function column(step) {
  const cell = make('div', 'strip-step');
  for (const word of step.blocks || []) {
    const branch = make('div', 'strip-branch');
    for (const segment of word.match(/(.)\1*/g) || []) {
      const part = make('i', 'kind-' + (KINDS[segment[0]] || 'computed'));
      part.style.flexGrow = segment.length;
      branch.append(part);
    }
    cell.append(branch);
  }
  return cell;
}

function describe(index) {
  const step = data.steps[index];
  if (!step) return '';
  const parts = ['Step ' + (index + 1), milliseconds(step.ms), WORDS[step.kind] || step.kind];
  if (step.sigma != null) parts.push('σ ' + step.sigma.toFixed(3));
  const blocks = (step.blocks || []).join('');
  if (blocks.length) {
    const computed = [...blocks].filter((letter) => letter === 'c').length;
    parts.push(computed + ' of ' + blocks.length + ' block passes computed');
  }
  if (step.why) parts.push(step.why);
  return parts.join('  ·  ');
}

// What a cache has saved so far: block passes counted, and seconds against what the same steps take here without one.
function saved() {
  const letters = data.steps.flatMap((step) => [...(step.blocks || []).join('')]);
  const computed = letters.filter((letter) => letter === 'c').length + letters.filter((letter) => letter === 'h').length / 2;
  if (!letters.length || computed === letters.length) return '';
  const words = [Math.round(100 * computed / letters.length) + '% of the block passes computed'];
  if (data.uncached_ms) {
    const spent = data.steps.reduce((sum, step) => sum + step.ms, 0) / 1000;
    const full = data.steps.length * data.uncached_ms / 1000;
    words.push(spent.toFixed(1) + ' s instead of about ' + full.toFixed(1) + ' s');
  }
  return words.join(' · ');
}

function choose(index) {
  chosen = index;
  bars.querySelectorAll('.chosen').forEach((bar) => bar.classList.remove('chosen'));
  if (index != null && bars.children[index]) bars.children[index].classList.add('chosen');
  readout.textContent = index == null ? resting() : describe(index);
}

// What the line under the bars says while no bar is pointed at; said seldom, for it is read aloud.
function resting() {
  if (!data.steps.length) return data.current ? 'The first step is under way.' : '';
  if (data.current) return 'Step ' + (data.current.step + 1) + ' is under way, from σ ' + data.current.sigma.toFixed(3);
  return 'Point at a bar, or walk them with the arrow keys, for its noise level and blocks.';
}

function draw() {
  data = props.value || {};
  data.steps = data.steps || [];
  const total = Math.max(data.total || 0, data.steps.length);
  root.hidden = total === 0;
  if (total === 0) { drawn = []; bars.replaceChildren(); strip.replaceChildren(); return; }

  // Another run than the one drawn: begin again.
  const same = drawn.length <= data.steps.length && drawn.every((ms, i) => data.steps[i].ms === ms);
  if (!same || bars.children.length !== total) {
    drawn = [];
    chosen = null;
    bars.replaceChildren();
    strip.replaceChildren();
    for (let i = 0; i < total; i++) {
      const slot = make('div', 'bar-slot');
      slot.dataset.step = i;
      bars.append(slot);
      strip.append(make('div', 'strip-step'));
    }
  }
  fit();

  // The first step carries one-off costs: it does not set the scale, and is cut off with a mark where it is higher.
  const rest = data.steps.length > 1 ? data.steps.slice(1) : data.steps;
  const top = Math.max(1, ...rest.map((step) => step.ms)) * 1.12;
  for (let i = 0; i < data.steps.length; i++) {
    const step = data.steps[i];
    const slot = bars.children[i];
    let bar = slot.firstElementChild;
    if (!bar) {
      bar = make('div');
      slot.append(bar, make('span', 'bar-number figures', step.ms >= 10000 ? Math.round(step.ms / 1000) + ' s' : Math.round(step.ms)));
      strip.children[i].replaceWith(column(step));
      drawn.push(step.ms);
    }
    // Only what changed is touched: on a small machine the page must not take the model's time.
    const name = 'bar kind-' + step.kind + (step.ms > top ? ' beyond' : '');
    const height = Math.max(2, Math.min(100, step.ms / top * 100)).toFixed(1) + '%';
    if (bar.className !== name) bar.className = name;
    if (slot.dataset.height === height) continue;
    slot.dataset.height = height;
    bar.style.height = height;
    slot.style.setProperty('--bar', height);
  }
  const under = data.current ? bars.children[data.current.step] : null;
  for (const slot of bars.querySelectorAll('.current')) if (slot !== under) slot.classList.remove('current');
  if (under) under.classList.add('current');

  for (const item of root.querySelectorAll('.timeline-key li')) {
    const kind = item.dataset.kind;
    const present = data.steps.some((step) => step.kind === kind || (step.blocks || []).some((word) => word.includes(
      Object.keys(KINDS).find((letter) => KINDS[letter] === kind))));
    item.hidden = kind !== 'computed' && !present;
  }
  text('.timeline-count', data.steps.length + ' of ' + total);
  text('.timeline-saved', saved());
  const line = root.querySelector('.timeline-uncached');
  const share = data.uncached_ms ? data.uncached_ms / top * 100 : 0;
  line.hidden = !(share > 0 && share <= 100 && data.steps.some((step) => step.kind !== 'computed'));
  line.style.bottom = share.toFixed(1) + '%';
  text('.timeline-pace', rest.length ? 'median ' + milliseconds(median(rest.map((step) => step.ms))) : '');
  text('.scale-top', rest.length ? milliseconds(top) : '');
  strip.setAttribute('data-branches', (data.branches || []).join(' '));
  const words = chosen == null ? resting() : describe(chosen);
  if (readout.textContent !== words) readout.textContent = words;
}

// Numbers only where they have room, and gaps only where there is something left between them.
function fit() {
  const slot = bars.clientWidth / Math.max(1, bars.children.length);
  root.classList.toggle('narrow', slot < 19);
  root.classList.toggle('many', slot < 6);
}

new ResizeObserver(fit).observe(bars);
bars.addEventListener('pointerover', (event) => {
  const slot = event.target.closest('.bar-slot');
  if (slot) choose(Number(slot.dataset.step));
});
bars.addEventListener('pointerleave', () => choose(null));
plot.addEventListener('blur', () => choose(null));
plot.addEventListener('keydown', (event) => {
  const last = data.steps.length - 1;
  const moves = {ArrowRight: chosen == null ? 0 : chosen + 1, ArrowLeft: chosen == null ? last : chosen - 1, Home: 0, End: last};
  if (!(event.key in moves) || last < 0) return;
  event.preventDefault();
  choose(Math.min(last, Math.max(0, moves[event.key])));
});
watch('value', draw);
draw();
