/* The panel beside a graph, a sheet under it where there is little room, and the controls that all graphs have. */

function showPanelBox({panel, pins}) {
  const open = panel === "auto" ? !isNarrow() || pins.length > 0 : panel === "open";
  byId("panel-box").classList.toggle("closed", !open);
  byId("side").hidden = !open;
  byId("panel-box").hidden = !open && !isNarrow();
  for (const id of ["panel-toggle", "sheet-handle"]) byId(id).setAttribute("aria-expanded", open);
}

// A card for each feature shown, of those pinned all; without any a hint. The handle says what the sheet holds.
function fillPanel(store, pinned, shown, cardOf, {hint, handle}) {
  const head = pinned.length > 1 ? [element("div", {className: "tools"}, [element("span", {textContent: `${pinned.length} pinned`}),
    actionButton("Release all", "Release all pinned features", () => store.set({pins: []}))])] : [];
  byId("panel").replaceChildren(...head, ...shown.map((node) => cardOf(node, pinned.length > 0)),
    ...(shown.length ? [] : [element("p", {className: "quiet", textContent: hint})]));
  byId("sheet-handle").textContent = pinned.length === 1 ? pinned[0].label : pinned.length ? `${pinned.length} features pinned` : handle;
}

function showControls(shown) {
  for (const key of ["links", "order", "colour"]) byId(key).value = shown[key];
  byId("only-connected").checked = shown.connected;
  if (byId("search").value.trim() !== shown.find.trim()) byId("search").value = shown.find;
  showTheme(shown.theme);
  showPanelBox(shown);
}

// `choose` is given what the reader has typed when Enter is pressed, `repaint` is called when the colours change.
function listenToControls(store, choose, repaint) {
  for (const key of ["links", "order", "colour"]) byId(key).addEventListener("change", (event) => store.set({[key]: event.target.value}));
  byId("only-connected").addEventListener("change", (event) => store.set({connected: event.target.checked}));
  byId("search").addEventListener("input", (event) => store.set({find: event.target.value}));
  byId("search").addEventListener("keydown", (event) => { if (event.key === "Enter") choose(event.target.value); });
  const toggle = () => store.set({panel: byId("side").hidden ? "open" : "closed"});
  for (const id of ["panel-toggle", "sheet-handle"]) byId(id).addEventListener("click", toggle);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.target.closest("input, select")) store.set({pins: []});
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  matchMedia("(max-width: {{ narrow }}px)").addEventListener("change", () => showPanelBox(store.view));
}
