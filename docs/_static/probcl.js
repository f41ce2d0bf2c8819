// The theme's toggles of the navigation have no name for those who do not see them.
document.addEventListener("DOMContentLoaded", () => {
  for (const toggle of document.querySelectorAll("li > details > summary:not([aria-label])")) {
    const page = toggle.closest("li").querySelector("a");
    toggle.setAttribute("aria-label", `Pages under ${page ? page.textContent.trim() : "this"}`);
  }
});
