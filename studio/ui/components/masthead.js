const root = element.querySelector('.masthead');

function draw() {
  const data = props.value || {};
  root.querySelector('.masthead-machine').textContent = data.machine || '';
  const worker = root.querySelector('.masthead-worker');
  worker.dataset.state = data.worker_state || '';
  const words = worker.querySelector('span');
  if (words.textContent !== (data.worker || '')) words.textContent = data.worker || '';
  worker.hidden = !data.worker;
}

watch('value', draw);
draw();
