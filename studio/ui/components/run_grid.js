const root = element.querySelector('.runs');
const grid = root.querySelector('.runs-grid');
const WORDS = {running: 'running', complete: '', failed: 'failed', cancelled: 'stopped', interrupted: 'interrupted'};

function tile(run, chosen) {
  const item = document.createElement('li');
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'run-tile';
  button.dataset.run = run.id;
  button.dataset.state = run.state;
  button.setAttribute('aria-pressed', String(run.id === chosen));
  const frame = document.createElement('span');
  frame.className = 'run-frame';
  if (run.poster) {
    const image = document.createElement('img');
    image.src = run.poster;
    image.alt = '';
    frame.append(image);
  }
  const state = run.partial ? 'partial' : WORDS[run.state] ?? run.state;
  if (state) {
    const badge = document.createElement('span');
    badge.className = 'run-badge';
    badge.textContent = state;
    frame.append(badge);
  }
  const prompt = document.createElement('span');
  prompt.className = 'run-prompt';
  prompt.textContent = run.prompt;
  prompt.title = run.prompt;
  const line = document.createElement('span');
  line.className = 'run-line figures';
  line.textContent = run.line;
  button.append(frame, prompt, line);
  item.append(button);
  return item;
}

function draw() {
  const data = props.value || {};
  const runs = data.runs || [];
  const held = grid.contains(document.activeElement) ? document.activeElement.dataset.run : null;
  grid.replaceChildren(...runs.map((run) => tile(run, data.chosen)));
  if (held) grid.querySelector(`[data-run="${CSS.escape(held)}"]`)?.focus();
  root.querySelector('.runs-count').textContent = data.total == null ? '' : data.total === 0 ? data.empty || 'No runs yet.'
    : runs.length < data.total ? runs.length + ' of ' + data.total + ' runs' : data.total + (data.total === 1 ? ' run' : ' runs');
}

grid.addEventListener('click', (event) => {
  const button = event.target.closest('.run-tile');
  if (!button) return;
  grid.querySelectorAll('.run-tile').forEach((other) => other.setAttribute('aria-pressed', String(other === button)));
  trigger('choose', {run: button.dataset.run});
});
watch('value', draw);
draw();
