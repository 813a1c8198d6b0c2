const root = element.querySelector('.ideas');

function draw() {
  const prompts = (props.value || {}).prompts || [];
  root.hidden = !prompts.length;
  root.querySelectorAll('button').forEach((button) => button.remove());
  prompts.forEach((prompt, index) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = prompt;
    button.title = prompt;
    button.dataset.index = index;
    root.append(button);
  });
}

root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('idea', {index: Number(button.dataset.index)});
});
watch('value', draw);
draw();
