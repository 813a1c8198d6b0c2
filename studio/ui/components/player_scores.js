// What was measured for each frame: a line under the pictures for each clip, and the way to its worst frame.
const stripTemplate = find('.player-strip');
let strips = [];

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
  const scored = reading.clips.filter((clip) => clip.scores);
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
  const scores = reading.clips[pair[1]].scores || reading.clips[pair[0]].scores;
  const at = scores ? worst(scores) : -1;
  if (at >= 0) jump(at);
}
