const root = element.querySelector('.clips');
const list = root.querySelector('.clips-rows');
const edits = new Map();

function row(clip) {
  const item = make('li', 'clip');
  item.dataset.clip = clip.id;
  item.dataset.state = clip.state;
  const frame = make('span', 'clip-frame');
  if (clip.picture.startsWith('data:image/jpeg;base64,')) frame.append(makeImage(clip.picture));
  const words = make('div', 'clip-words');
  const head = make('div', 'clip-head');
  head.append(make('span', 'clip-name', clip.state === 'reading' ? 'Being read…' : clip.name), make('span', 'clip-line figures', clip.line));
  words.append(head);
  if (clip.state === 'ready') {
    const caption = make('textarea', 'clip-caption');
    caption.rows = 2;
    caption.maxLength = 2000;
    caption.value = clip.caption;
    caption.placeholder = 'What is to be seen?';
    caption.setAttribute('aria-label', 'Caption of ' + clip.name);
    const held = make('label', 'clip-held');
    const tick = make('input');
    tick.type = 'checkbox';
    tick.checked = clip.held_out;
    tick.setAttribute('aria-label', 'Hold out ' + clip.name);
    held.append(tick, make('span', '', 'held out, for scoring only'));
    words.append(caption, held);
  } else if (clip.note) {
    words.append(make('p', 'clip-note', 'Left out: ' + clip.note));
  }
  const button = makeButton('small', 'Remove');
  button.setAttribute('aria-label', 'Remove ' + (clip.name || 'the clip'));
  item.append(frame, words, button);
  return item;
}

// What was typed here is newer than anything that arrives.
function mended(clips) {
  return clips.map((clip) => ({...clip, ...(edits.get(clip.id) || {})}));
}

function keepEdits() {
  const data = props.value || {};
  const clips = mended(data.clips || []);
  for (const id of [...edits.keys()]) if (!clips.some((clip) => clip.id === id)) edits.delete(id);
  if (JSON.stringify(clips) !== JSON.stringify(data.clips || [])) props.value = {...data, clips};
}

// What is typed is in the value too, and draws nothing anew.
const shown = (data) => (data.clips || []).map((clip) => [clip.id, clip.state, clip.note, clip.name, clip.line]);

function draw(data) {
  const clips = mended(data.clips || []);
  const caret = document.activeElement?.selectionStart;
  const again = keepFocus(list, 'clip', () => list.replaceChildren(...clips.map(row)));
  if (again?.localName === 'textarea') again.setSelectionRange(caret, caret);
  const ready = clips.filter((clip) => clip.state === 'ready').length;
  const left = clips.filter((clip) => clip.state === 'left out').length;
  const reading = clips.length - ready - left;
  root.hidden = !clips.length;
  root.querySelector('.clips-count').textContent = [
    ready + (ready === 1 ? ' clip' : ' clips'), left ? left + ' left out' : '', reading ? reading + ' being read' : ''].filter(Boolean).join(' · ');
}

function edit(event, send) {
  const item = event.target.closest('.clip');
  if (!item) return;
  const typed = item.querySelector('textarea'), tick = item.querySelector('input');
  if (!typed || !tick) return;
  edits.set(item.dataset.clip, {caption: typed.value, held_out: tick.checked});
  const data = props.value || {};
  props.value = {...data, clips: mended(data.clips || [])};
  if (send) trigger('edit', {clip: item.dataset.clip});
}
list.addEventListener('input', (event) => edit(event, false));
list.addEventListener('change', (event) => edit(event, true));
list.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('remove', {clip: button.closest('.clip').dataset.clip});
});
watch('value', keepEdits);
drawChanges(draw, shown);
