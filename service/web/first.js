/* What must be settled before anything is painted, so that nothing flashes or jumps: the colours (light, dark, or as
   the device prefers), and whether the search page begins with answers. A classic script; knows nothing of the page
   but its radio buttons named "theme". */
{
  document.documentElement.dataset.view = /[?&](q|like|image)=[^&]/.test(location.search) ? "answers" : "home";

  const KEY = "twinlens.theme";
  const THEMES = ["light", "dark"];

  // Storage may be forbidden (private windows, embedded pages): then the choice lasts as long as the page.
  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const keep = (theme) => {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      /* see above */
    }
  };

  const apply = (theme) => {
    const chosen = THEMES.includes(theme) ? theme : "";
    document.documentElement.dataset.theme = chosen;
    for (const meta of document.querySelectorAll("meta[name=theme-color]")) {
      meta.dataset.media ??= meta.media;
      const isThis = meta.dataset.media.includes(chosen);
      meta.media = chosen ? (isThis ? "all" : "not all") : meta.dataset.media;
    }
    for (const radio of document.querySelectorAll("input[name=theme]")) radio.checked = radio.value === chosen;
  };

  apply(kept());
  document.addEventListener("DOMContentLoaded", () => apply(kept())); // the radio buttons are there only now
  document.addEventListener("change", ({ target }) => {
    if (target.name !== "theme") return;
    keep(target.value);
    apply(target.value);
  });
  addEventListener("storage", ({ key, newValue }) => key === KEY && apply(newValue)); // another tab chose
}
