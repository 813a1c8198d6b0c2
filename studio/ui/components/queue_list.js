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

function row(job) {
  const item = make('li', 'job' + (job.shown ? ' shown' : ''));
  item.dataset.state = job.state;
  item.dataset.job = job.id;
  const state = job.state === 'queued' && job.position != null ? '#' + (job.position + 1) + ' ' + WORDS.queued : WORDS[job.state] || job.state;
  const words = make('div', 'job-words');
  const prompt = make('p', 'job-prompt', job.prompt);
  prompt.title = job.prompt;
  words.append(prompt, make('p', 'job-line figures', job.note ? job.line + ' · ' + job.note : job.line));
  const buttons = make('div', 'job-actions');
  for (const action of job.actions || []) {
    const [label, meaning] = ACTIONS[action] || [action, action];
    const button = makeButton('small', label);
    button.dataset.action = action;
    button.title = meaning;
    button.setAttribute('aria-label', label + ': ' + job.prompt.slice(0, 60));
    buttons.append(button);
  }
  item.append(make('span', 'job-state', state), words, buttons);
  return item;
}

drawChanges((data) => {
  const jobs = data.jobs || [];
  keepFocus(list, 'job', () => list.replaceChildren(...jobs.map(row)));
  const waiting = jobs.filter((job) => job.state === 'queued').length;
  root.querySelector('.queue-count').textContent = waiting ? waiting + ' waiting' : '';
  root.querySelector('.queue-empty').hidden = jobs.length > 0;
  const pause = root.querySelector('.queue-pause');
  pause.hidden = !data.may_pause || (!jobs.length && !data.paused);
  pause.textContent = data.paused ? 'Resume the queue' : 'Pause the queue';
  pause.dataset.action = data.paused ? 'resume' : 'pause';
  root.classList.toggle('paused', !!data.paused);
});

root.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (button) trigger('act', {action: button.dataset.action, job: button.closest('.job')?.dataset.job || ''});
});
