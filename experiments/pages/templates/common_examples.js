/* The model's first inputs with several features' activations on them: the same examples for all. */

// `features`: [{run, node, name}], the first one leads: images are in falling order of its activation.
function commonExamples(features) {
  if (features[0].node.examples?.map) return commonMaps(features.filter(({node}) => node.examples?.map));
  const known = features.filter(({node}) => node.examples?.common?.length);
  if (!known.length || known[0] !== features[0]) return null;
  return known[0].node.examples.strip !== undefined ? commonImages(known) : commonTexts(known);
}

const commonMaps = (features) => element("div", {className: "maps"}, features.map(({node, name}) => element("figure", {}, [
  mapOf(node), element("figcaption", {textContent: `${name} ${node.index}`, title: node.label})])));

function commonImages(features) {
  const [{run, node}] = features;
  const largest = features.map((one) => largestOf(one.node.examples.common.map(Math.abs)));
  const order = node.examples.common.map((_, i) => i).sort((a, b) => node.examples.common[b] - node.examples.common[a]);
  const cell = (value, scale) => {
    const bar = element("span", {className: "activation"});
    Object.assign(bar.style, {width: `${Math.max(2, 100 * Math.abs(value) / scale)}%`, background: value >= 0 ? "var(--high)" : "var(--low)"});
    return element("td", {}, [digits(value, 3), bar]);
  };
  const rows = order.map((i) => {
    const [number, caption] = run.data.images.common[i];
    return element("tr", {}, [element("td", {}, [fromSheet(run.data.images, number, caption)]),
      ...features.map((one, which) => cell(one.node.examples.common[i], largest[which]))]);
  });
  const heads = features.map(({name, node: {label, index}}) => element("th", {scope: "col", textContent: `${name} ${index}`, title: label}));
  return element("table", {className: "common"}, [
    element("thead", {}, [element("tr", {}, [element("th", {}, [element("span", {className: "visually-hidden", textContent: "image"})]), ...heads])]),
    element("tbody", {}, rows)]);
}

function commonTexts(features) {
  const [{run}] = features, {sequences} = run.data.tokens;
  const shades = features.map(({node}) => node.examples.common);
  const scale = features.map(({run: own, node}) => scaleOf(node.examples, own.data.tokens));
  const line = (sequence, which) => element("p", {className: "shaded"}, [
    element("span", {className: "who", textContent: `${features[which].name} ${features[which].node.index} `}),
    ...shades[which][sequence].flatMap((shade, position) => [shadedToken(run, sequences[sequence][position], shade,
      Number((shade * scale[which]).toPrecision(3))), element("wbr")]),
    ...(shades[which][sequence].length < sequences[sequence].length ? ["…"] : [])]);
  return element("div", {}, shades[0].map((_, sequence) =>
    element("div", {className: "common-text"}, features.map((_, which) => line(sequence, which)))));
}
