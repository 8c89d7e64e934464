/* Where features stand: a column for every node layer, most important on top. */

const RADIUS = 6, PITCH = 14, WIDEST_PITCH = 44, LEGIBLE_PITCH = 10, LEAST_PITCH = 4;
const BOTTOM = 16, LEAST_COLUMN = 140, SHORT_COLUMN = 104, MARGIN = 14, LABEL_START = 2 * RADIUS + 3, WIDEST_NAME = 220;
const TALLEST = 16000; // browsers refuse canvases of more than 32767 device pixels

const widthOf = (() => {
  const measure = document.createElement("canvas").getContext("2d");
  let family = null;
  const known = new Map();
  return (text, font) => {
    family ??= getComputedStyle(document.body).fontFamily;
    const key = font + text;
    if (!known.has(key)) {
      measure.font = `${font} ${family}`;
      known.set(key, measure.measureText(text).width);
    }
    return known.get(key);
  };
})();
const labelWidth = (node) => (node.labelWidth ??= widthOf(node.label, "10px"));
const shortened = (node, room) =>
  labelWidth(node) <= room ? node.label : node.label.slice(0, Math.max(1, Math.floor(node.label.length * room / labelWidth(node)) - 2)) + "…";

// What stands over a column: the node layer's name, in short where many have little room.
const headOf = (layer, short) => (short ? layer.short : layer.name);

// Columns of visible features, and their places in a room of this width and height.
function layOut(layers, {order, fit, short}, width, height) {
  const least = short ? 56 : 130;
  const headWidths = layers.map((layer) => widthOf(headOf(layer, short), "600 12px"));
  const leastColumn = Math.max(short ? SHORT_COLUMN : LEAST_COLUMN, ...headWidths.map((width) => width + 20));
  // The outermost names have a gap to reach into on one side only: their columns are wide enough for the rest.
  const leastWidth = (index) => (index > 0 && index < layers.length - 1 ? 0
    : Math.max(0, Math.min(WIDEST_NAME, headWidths[index] + 2) - (least / 2 - 8)));
  const columns = layers.map((layer) => {
    const nodes = layer.nodes.filter((node) => node.visible && !node.constant);
    return order === "community" ? nodes.sort((a, b) => a.look.rank - b.look.rank || a.index - b.index) : nodes;
  });
  const top = layers.some((layer) => layer.nodes[0]?.constant && layer.nodes[0].visible) ? 34 : 14;
  const rows = Math.max(1, ...columns.map((column) => column.length));
  const room = Math.max(100, height - 58 - top - BOTTOM);
  const body = Math.min(TALLEST, Math.max(room, rows * (fit ? LEAST_PITCH : PITCH)));
  const pitches = columns.map((column) => Math.min(WIDEST_PITCH, body / Math.max(1, column.length)));
  const labelRoom = Math.min(130, Math.max(60, (width - 2 * MARGIN - least * (layers.length - 1)) / layers.length - LABEL_START - 4));
  const rooms = layers.map((_, index) => Math.max(labelRoom, leastWidth(index) - LABEL_START - 4));
  const widths = layers.map((layer, index) => Math.max(leastWidth(index), LABEL_START + (pitches[index] < LEGIBLE_PITCH ? 0
    : 8 + Math.min(rooms[index], Math.max(0, ...columns[index].map(labelWidth))))));
  const taken = widths.reduce((sum, one) => sum + one, 2 * MARGIN);
  const gap = Math.max(least, leastColumn - Math.min(...widths), (width - taken) / Math.max(1, layers.length - 1));
  let x = MARGIN;
  layers.forEach((layer, index) => {
    Object.assign(layer, {x, width: widths[index], pitch: pitches[index], labelRoom: rooms[index], column: columns[index]});
    x += widths[index] + gap;
    columns[index].forEach((node, row) => { node.y = top + (row + 0.5) * pitches[index]; });
    const constant = layer.nodes[0];
    if (constant?.constant) {
      constant.y = top / 2;
      if (constant.visible) layer.column = [constant, ...columns[index]];
    }
  });
  return {width: Math.max(width, taken + gap * (layers.length - 1)), height: top + body + BOTTOM, gap};
}
