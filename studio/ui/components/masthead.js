const root = element.querySelector('.masthead');

drawChanges((data) => {
  root.querySelector('.masthead-machine').textContent = data.machine || '';
  const worker = root.querySelector('.masthead-worker');
  worker.dataset.state = data.worker_state || '';
  worker.hidden = !data.worker;
  write(worker.querySelector('span'), data.worker);
});
