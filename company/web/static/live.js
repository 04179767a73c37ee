// Pages ask again for their live part; not while nobody looks at them. Everything works without this file.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden) event.preventDefault();
});
