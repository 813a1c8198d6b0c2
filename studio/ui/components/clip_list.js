const root = element.querySelector('.clips');
const list = root.querySelector('.clips-rows');
const edits = new Map();
let drawn = '';

function make(tag, name, words) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (words != null) made.textContent = words;
  return made;
}

function row(clip) {
  const item = make('li', 'clip');
  item.dataset.clip = clip.id;
  item.dataset.state = clip.state;
  const frame = make('span', 'clip-frame');
  if (clip.picture.startsWith('data:image/jpeg;base64,')) {
    const image = make('img');
    image.src = clip.picture;
    image.alt = '';
    frame.append(image);
  }
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
  const button = make('button', 'small', 'Remove');
  button.type = 'button';
  button.setAttribute('aria-label', 'Remove ' + (clip.name || 'the clip'));
  item.append(frame, words, button);
  return item;
}

// What was typed here is newer than anything that arrives.
function mended(clips) {
  return clips.map((clip) => ({...clip, ...(edits.get(clip.id) || {})}));
}

function draw() {
  const data = props.value || {};
  const clips = mended(data.clips || []);
  for (const id of [...edits.keys()]) if (!clips.some((clip) => clip.id === id)) edits.delete(id);
  if (JSON.stringify(clips) !== JSON.stringify(data.clips || [])) props.value = {...data, clips};
  const words = JSON.stringify(clips.map((clip) => [clip.id, clip.state, clip.note, clip.name, clip.line]));
  if (words === drawn) return;
  drawn = words;
  const active = list.contains(document.activeElement) ? document.activeElement : null;
  const place = active && [active.closest('.clip').dataset.clip, active.className || active.type, active.selectionStart];
  list.replaceChildren(...clips.map(row));
  if (place) {
    const item = [...list.children].find((each) => each.dataset.clip === place[0]);
    const again = item?.querySelector(place[1] === 'clip-caption' ? 'textarea' : place[1] === 'checkbox' ? 'input' : 'button');
    again?.focus();
    if (again?.tagName === 'TEXTAREA') again.setSelectionRange(place[2], place[2]);
  }
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
watch('value', draw);
draw();
