const root = element.querySelector('.queue');
const list = root.querySelector('.queue-jobs');
const WORDS = {
  queued: 'waiting', running: 'running', complete: 'finished', failed: 'failed', cancelled: 'stopped', interrupted: 'interrupted',
};
const ACTIONS = {
  show: ['Show', 'Show this job in the live area'],
  up: ['Move up', 'Move this job one place forward'],
  cancel: ['Cancel', 'Take this job out of the queue'],
  retry: ['Run again', 'Queue the same request again'],
};
let drawn = '';

function row(job) {
  const item = document.createElement('li');
  item.className = 'job' + (job.shown ? ' shown' : '');
  item.dataset.state = job.state;
  item.dataset.job = job.id;
  const state = document.createElement('span');
  state.className = 'job-state';
  state.textContent = job.state === 'queued' && job.position != null ? '#' + (job.position + 1) + ' ' + WORDS.queued : WORDS[job.state] || job.state;
  const words = document.createElement('div');
  words.className = 'job-words';
  const prompt = document.createElement('p');
  prompt.className = 'job-prompt';
  prompt.textContent = job.prompt;
  prompt.title = job.prompt;
  const line = document.createElement('p');
  line.className = 'job-line figures';
  line.textContent = job.note ? job.line + ' · ' + job.note : job.line;
  words.append(prompt, line);
  const buttons = document.createElement('div');
  buttons.className = 'job-actions';
  for (const action of job.actions || []) {
    const [label, meaning] = ACTIONS[action] || [action, action];
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'small';
    button.dataset.action = action;
    button.textContent = label;
    button.title = meaning;
    button.setAttribute('aria-label', label + ': ' + job.prompt.slice(0, 60));
    buttons.append(button);
  }
  item.append(state, words, buttons);
  return item;
}

function draw() {
  const data = props.value || {};
  const jobs = data.jobs || [];
  const words = JSON.stringify(data);
  if (words === drawn) return;
  drawn = words;
  // The keyboard's place is kept when the list is drawn anew.
  const held = root.contains(document.activeElement) ? document.activeElement : null;
  const place = held && [held.closest('.job')?.dataset.job, held.dataset.action];
  list.replaceChildren(...jobs.map(row));
  if (place && place[0]) list.querySelector(`[data-job="${CSS.escape(place[0])}"] [data-action="${CSS.escape(place[1] || '')}"]`)?.focus();
  const waiting = jobs.filter((job) => job.state === 'queued').length;
  root.querySelector('.queue-count').textContent = waiting ? waiting + ' waiting' : '';
  root.querySelector('.queue-empty').hidden = jobs.length > 0;
  const pause = root.querySelector('.queue-pause');
  pause.hidden = !data.may_pause || (!jobs.length && !data.paused);
  pause.textContent = data.paused ? 'Resume the queue' : 'Pause the queue';
  pause.dataset.action = data.paused ? 'resume' : 'pause';
  root.classList.toggle('paused', !!data.paused);
}

root.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (button) trigger('act', {action: button.dataset.action, job: button.closest('.job')?.dataset.job || ''});
});
watch('value', draw);
draw();
