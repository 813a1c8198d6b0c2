const root = element.querySelector('.message');
const SIGNS = {quiet: '', good: '✓', warn: '!', error: '✕'};

function draw() {
  const data = props.value || {};
  root.hidden = !data.words;
  root.dataset.tone = data.tone || 'quiet';
  root.setAttribute('role', data.tone === 'error' ? 'alert' : 'status');
  root.querySelector('.message-sign').textContent = SIGNS[data.tone] || '';
  root.querySelector('.message-field').textContent = data.field ? data.field + ':' : '';
  root.querySelector('.message-words').textContent = data.words || '';
  const link = root.querySelector('.message-link');
  const leads = /^https?:\/\//.test(data.link || '');
  link.hidden = !leads;
  link.textContent = leads ? data.link : '';
  if (leads) link.href = data.link; else link.removeAttribute('href');
  const bar = root.querySelector('.message-share');
  bar.hidden = data.share == null;
  if (data.share != null) bar.value = data.share;
}

watch('value', draw);
draw();
