/* The whole view as plain values: kept in the address, saved to a file and read back from both.

   A page names its values in a specification, {key: {start, problem}}: `problem(value)` says what is wrong, or null. */

const oneOf = (...options) => ({start: options[0],
  problem: (value) => (options.includes(value) ? null : `is ${JSON.stringify(value)}; expected ${options.join(", ")}`)});
const yesNo = (start) => ({start, problem: (value) => (typeof value === "boolean" ? null : "is neither true nor false")});
const anyText = (start = "") => ({start, problem: (value) => (typeof value === "string" && value.length < 500 ? null : "is no text")});

function problemOfFeature(run, value) {
  if (!Array.isArray(value) || value.length !== 2 || typeof value[0] !== "string" || !Number.isInteger(value[1]))
    return "holds something else than a node layer's name with a feature's number";
  return run.find(...value) ? null : `names ${value[0]} feature ${value[1]}, which is not here`;
}
const problemOfFeatures = (run, value) => (Array.isArray(value)
  ? value.map((one) => problemOfFeature(run, one)).find((problem) => problem) ?? null : "is no list of features");
const featureList = (run) => ({start: [], problem: (value) => problemOfFeatures(run, value)});
const oneFeature = (run, start) => ({start, problem: (value) => (value === null ? null : problemOfFeature(run, value))});

const groupList = (run) => ({start: [], problem: (value) => {
  if (!Array.isArray(value)) return "is no list of groups";
  for (const group of value) {
    if (typeof group?.name !== "string" || !group.name.trim()) return "holds a group without a name";
    const problem = problemOfFeatures(run, group.features);
    if (problem) return `has a group “${group.name}” that ${problem}`;
  }
  const names = value.map((group) => group.name);
  return new Set(names).size === names.length ? null : "holds two groups of one name";
}});

const addressOf = (node) => [node.layerName, node.index];
const KIND = "view of a local-interaction-basis page";

// `apply(view, changed, isFromAddress)` shows a view, `changed` being the keys that differ from before; `say(text, isProblem)` tells the reader.
function viewStore(title, specification, apply, say) {
  const keys = Object.keys(specification);
  const start = Object.fromEntries(keys.map((key) => [key, specification[key].start]));
  const text = (value) => JSON.stringify(value);
  let view = {...start}, written = null, waiting = null;

  const problemOf = (found) => {
    for (const [key, value] of Object.entries(found)) {
      if (!specification[key]) continue; // another page's, such as the graph's in the features' address
      const problem = specification[key].problem(value);
      if (problem) return `“${key}” ${problem}`;
    }
    return null;
  };

  function toAddress() {
    const parts = keys.filter((key) => text(view[key]) !== text(start[key])).map((key) =>
      `${key}=${encodeURIComponent(typeof view[key] === "string" ? view[key] : text(view[key]))}`);
    return [...parts, ...others].join("&");
  }

  let others = []; // what the address holds for the other page, handed on as it is
  function fromAddress(hash) {
    const found = {};
    others = [];
    for (const part of hash.replace(/^#/, "").split("&").filter((one) => one)) {
      const [key, ...rest] = part.split("=");
      if (!specification[key]) { others.push(part); continue; }
      try {
        const value = decodeURIComponent(rest.join("="));
        found[key] = typeof start[key] === "string" ? value : JSON.parse(value);
      } catch { found[key] = undefined; }
    }
    return found;
  }

  function writeAddress() {
    waiting = null;
    written = toAddress();
    if (location.hash.replace(/^#/, "") !== written) history.replaceState(null, "", `#${written}`);
  }

  function show(next, isFromAddress = false) {
    const changed = new Set(keys.filter((key) => text(next[key]) !== text(view[key])));
    view = next;
    apply(view, changed, isFromAddress);
    // Browsers refuse a page that writes its address too often, as a slider would.
    if (!isFromAddress && waiting === null) waiting = setTimeout(writeAddress, 120);
  }

  function readAddress() {
    if (waiting === null && location.hash.replace(/^#/, "") === written) return;
    const found = fromAddress(location.hash), problem = problemOf(found);
    if (problem) say(`The address could not be read: ${problem}.`, true);
    show(problem ? {...start} : {...start, ...found}, true);
    written = location.hash.replace(/^#/, "");
  }
  addEventListener("hashchange", readAddress);

  return {
    get view() { return view; },
    set: (changes) => show({...view, ...changes}),
    readAddress,
    reset: () => show({...start}),
    flush: () => { if (waiting !== null) { clearTimeout(waiting); writeAddress(); } return location.hash; },
    toFile: () => JSON.stringify({kind: KIND, title, view}, null, 1),
    fromFile: (content) => {
      let read;
      try { read = JSON.parse(content); } catch { read = null; }
      if (read?.kind !== KIND || typeof read.view !== "object" || read.view === null)
        return say("Not a saved view: expected a JSON file that “Save view” of this page wrote.", true);
      const problem = problemOf(read.view);
      if (problem) return say(`The view does not fit this page: ${problem}.`, true);
      show({...start, ...Object.fromEntries(keys.filter((key) => key in read.view).map((key) => [key, read.view[key]]))});
      say(`View of “${read.title}” loaded.`, false);
    },
  };
}

function say(text, isProblem) {
  byId("message").textContent = text;
  byId("message").classList.toggle("problem", isProblem);
  if (!isProblem) setTimeout(() => { if (byId("message").textContent === text) byId("message").textContent = ""; }, 4000);
}

// Buttons that every page has: save and load the view, choose light or dark, on a narrow screen show all of these.
function viewTools(store, fileName) {
  byId("save-view").addEventListener("click", () => {
    const link = element("a", {download: fileName, href: URL.createObjectURL(new Blob([store.toFile()], {type: "application/json"}))});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  byId("load-view").addEventListener("click", () => byId("view-file").click());
  byId("view-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) store.fromFile(await file.text());
    event.target.value = "";
  });
  byId("options-toggle").addEventListener("click", () => {
    const open = document.body.classList.toggle("options");
    byId("options-toggle").setAttribute("aria-expanded", open);
  });
  byId("theme").addEventListener("change", (event) => store.set({theme: event.target.value}));
}

function showTheme(theme) {
  byId("theme").value = theme;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

// Pins of a view whose places `placeOf` gives. The last one pinned comes first, where it is seen.
function pinning(store, placeOf) {
  const isSame = (place, node) => JSON.stringify(place) === JSON.stringify(placeOf(node));
  const others = (node) => store.view.pins.filter((place) => !isSame(place, node));
  return {
    isSame,
    isPinned: (node) => store.view.pins.some((place) => isSame(place, node)),
    pin: (node) => store.set({pins: [placeOf(node), ...others(node)]}),
    release: (node) => store.set({pins: others(node)}),
  };
}
