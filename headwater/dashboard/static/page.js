// The page of one Headwater node. Server-sent events bring a snapshot, then each second what changed; everything on
// screen is drawn from `view`, which holds no more than the span that the charts can show.
"use strict";

const HISTORY_MS = 900_000;
const view = { series: new Map(), devices: new Map(), alerts: new Map(), nodes: new Map(), status: null, totals: {} };
const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();

// --- what the stream says, into `view` ---------------------------------------------------------------

function take(update) {
  if (update.since === 0) {
    for (const table of [view.series, view.devices, view.alerts, view.nodes]) table.clear();
  }
  view.status = update.status;
  view.totals = update.totals;
  for (const row of update.devices) view.devices.set(row.device, row);
  for (const row of update.alerts) view.alerts.set(`${row.rule}/${row.instance}`, row);
  for (const row of update.nodes) view.nodes.set(row.node, row);
  for (const [field, devices] of Object.entries(update.series)) {
    for (const [device, news] of Object.entries(devices)) takeSeries(field, device, news);
  }
}

function takeSeries(field, device, news) {
  if (!view.series.has(field)) view.series.set(field, new Map());
  const devices = view.series.get(field);
  if (!devices.has(device)) devices.set(device, { raw: new Map(), windows: new Map() });
  const one = devices.get(device);
  for (const [time, value] of news.raw) {
    one.raw.set(Math.floor(time / 1000), [time, value]);
    one.last = Math.max(one.last ?? 0, time);
  }
  for (const [start, end, revision, complete, aggregates] of news.windows) {
    one.windows.set(start, { start, end, revision, complete, ...aggregates });
  }
  trim(one.raw, (point) => point[0]);
  trim(one.windows, (window) => window.start);
}

function trim(points, timeOf) {
  let newest = 0;
  for (const point of points.values()) newest = Math.max(newest, timeOf(point));
  for (const [key, point] of points) if (timeOf(point) < newest - HISTORY_MS) points.delete(key);
}

// --- charts -------------------------------------------------------------------------------------------

const COLOURS = ["#0b7fc2", "#d9730d", "#178a63", "#c2345c", "#7a5cd0", "#8a7a00", "#00838f", "#a1512b", "#5f7d1e", "#b04aa8", "#4a6fa5", "#6b6b6b"];
const shownCharts = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) shownCharts.add(entry.target.dataset.field);
    else shownCharts.delete(entry.target.dataset.field);
  }
  drawCharts();
});

function colourOf(device) {
  const index = [...view.devices.keys()].sort().indexOf(device);
  return COLOURS[Math.max(0, index) % COLOURS.length];
}

// The right edge is now, so that silence shows as a gap. A recording has a time of its own.
function rightEdge() {
  let newest = 0;
  for (const row of view.devices.values()) newest = Math.max(newest, row.seen_ms);
  const now = nodeNow();
  return newest && newest < now - HISTORY_MS && view.totals.readings ? newest : now;
}

function tracesOf(field, chosen, from) {
  const traces = [];
  for (const [device, one] of [...view.series.get(field)].sort()) {
    if (chosen && device !== chosen) continue;
    const name = device.split("/").slice(1).join("/") || device;
    const colour = colourOf(device);
    const raw = [...one.raw.values()].filter((point) => point[0] >= from).sort((a, b) => a[0] - b[0]);
    const windows = [...one.windows.values()].filter((window) => window.end >= from).sort((a, b) => a.start - b.start);
    // a direction that passes north jumps by 360: dots tell the truth where a line would not
    const dots = raw.length < 3 || /direction|bearing|heading/.test(field) || windows.some((window) => "circular_mean" in window);
    traces.push({ type: "scatter", mode: dots ? "markers" : "lines", name, legendgroup: device, x: raw.map((p) => new Date(p[0])), y: raw.map((p) => p[1]),
      opacity: 0.65, line: { width: 1, color: colour }, marker: { color: colour, size: raw.length < 3 ? 6 : 3 }, hovertemplate: "%{y:.4g} at %{x|%H:%M:%S}", showlegend: Boolean(chosen) });
    if (windows.length) traces.push(...windowTraces(name, device, windows, colour, Boolean(chosen)));
  }
  return traces;
}

function windowTraces(name, device, windows, colour, band) {
  const steps = { x: [], mid: [], min: [], max: [], text: [] };
  for (const window of windows) {
    for (const time of [window.start, window.end]) {
      steps.x.push(new Date(time));
      steps.mid.push(window.circular_mean ?? window.mean);
      steps.min.push(window.min);
      steps.max.push(window.max);
      steps.text.push(`${window.count ?? ""} readings, revision ${window.revision}${window.complete ? "" : ", incomplete"}`);
    }
    if ("circular_mean" in window) for (const list of Object.values(steps)) list.push(null); // from 359 to 1 is no step
  }
  const traces = [];
  if (band) {
    const edge = { type: "scatter", mode: "lines", x: steps.x, line: { width: 0, color: colour }, legendgroup: device, showlegend: false, hoverinfo: "skip" };
    traces.push({ ...edge, y: steps.min }, { ...edge, y: steps.max, fill: "tonexty", fillcolor: colour + "2a" });
  }
  traces.push({ type: "scatter", mode: "lines", name: band ? `${name}, windows` : name, legendgroup: device, x: steps.x, y: steps.mid, text: steps.text,
    line: { width: 2.5, color: colour }, hovertemplate: "%{y:.4g} (%{text})", showlegend: band });
  return traces;
}

function layoutOf(field, from, to) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  const axis = { separatethousands: false, gridcolor: line, linecolor: line, zeroline: false };
  return { title: { text: field, font: { size: 15, color: ink }, x: 0.01, xanchor: "left" }, margin: { l: 48, r: 12, t: 34, b: 34 }, uirevision: field,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 }, xaxis: { ...axis, type: "date", range: [new Date(from), new Date(to)] },
    yaxis: axis, showlegend: false, hovermode: "closest" };
}

function drawCharts() {
  const fields = [...view.series.keys()].filter((field) => field !== "seq").sort();
  element("charts-none").hidden = fields.length > 0;
  for (const field of fields) {
    if (document.querySelector(`.chart[data-field="${CSS.escape(field)}"]`)) continue;
    const box = document.createElement("div");
    box.className = "chart";
    box.dataset.field = field;
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `Chart of ${field}`);
    element("charts").append(box);
    watcher.observe(box);
  }
  const span = Number(element("span").value) * 1000;
  const to = rightEdge() + span / 50; // a little room for the last point
  const from = to - span;
  for (const field of shownCharts) {
    const box = document.querySelector(`.chart[data-field="${CSS.escape(field)}"]`);
    if (!box || !view.series.has(field)) continue;
    Plotly.react(box, tracesOf(field, element("device").value, from), layoutOf(field, from, to), { displayModeBar: false, responsive: true });
    box.dataset.points = String(Math.max(...[...view.series.get(field).values()].map((one) => one.last ?? 0)));
  }
}

// --- text ---------------------------------------------------------------------------------------------

function age(ms) {
  const seconds = Math.max(0, Math.round((nodeNow() - ms) / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

function nodeNow() {
  return view.status?.now_ms ?? Date.now();
}

function show(value) {
  return typeof value === "number" ? number.format(Math.round(value * 1000) / 1000) : String(value);
}

function rows(id, table, cellsOf, staleOf) {
  const body = element(id);
  const sorted = [...table.values()].sort((a, b) => cellsOf(a)[0].localeCompare(cellsOf(b)[0]));
  while (body.rows.length > sorted.length) body.deleteRow(-1);
  sorted.forEach((row, index) => {
    const line = body.rows[index] ?? body.insertRow();
    line.className = staleOf(row) ? "stale" : "";
    cellsOf(row).forEach((text, column) => {
      const cell = line.cells[column] ?? line.insertCell();
      cell.dataset.label = body.parentElement.tHead.rows[0].cells[column].textContent; // for narrow screens
      if (cell.textContent !== text) cell.textContent = text;
    });
  });
}

function ownNode(row) {
  // a node knows more of itself than its marks say
  const status = view.status;
  if (row.node !== status?.node) return row;
  return { ...row, version: row.version ?? status.version, backlog_records: row.backlog_records ?? status.central?.backlog_records };
}

function drawTables() {
  rows("devices", view.devices, (row) => [
    row.device, Object.entries(row.fields).map(([name, value]) => `${name} ${show(value)}`).join(" · "), age(row.seen_ms), show(row.readings),
  ], (row) => nodeNow() - row.seen_ms > (row.interval_ms ? Math.max(10_000, 3 * row.interval_ms) : 30_000));
  const own = view.status?.node;
  const nodes = new Map([...(own ? [[own, { node: own }]] : []), ...view.nodes]);
  rows("nodes", new Map([...nodes].map(([name, row]) => [name, ownNode(row)])), (row) => [
    row.node, row.mark_seen_ms ? `${age(row.mark_seen_ms)} ago` : row.node === own ? "this node" : "none", row.live_ms ? new Date(row.live_ms).toLocaleTimeString() : "",
    row.backlog_records === undefined ? "" : `${show(row.backlog_records)} records`, row.version ?? "", row.clock_ahead_ms > 1000 ? `${Math.round(row.clock_ahead_ms / 1000)} s ahead` : "",
  ], (row) => row.mark_seen_ms && nodeNow() - row.mark_seen_ms > 10_000);
}

function drawAlerts() {
  const order = { firing: 0, recovering: 1, pending: 2, resolved: 3, inactive: 4 };
  const list = [...view.alerts.values()].filter((row) => row.state !== "inactive").sort((a, b) => order[a.state] - order[b.state] || b.since - a.since);
  element("alerts-none").hidden = list.length > 0;
  element("alerts").replaceChildren(...list.slice(0, 100).map((row) => {
    const item = document.createElement("li");
    item.className = row.state;
    item.dataset.state = row.state;
    const title = document.createElement("strong");
    title.textContent = `${row.state}: ${row.rule} on ${row.instance}`;
    const detail = document.createElement("small");
    detail.textContent = ` since ${new Date(row.since).toLocaleTimeString()}, value ${show(row.value)}${row.cause ? `. ${row.cause}` : ""}`;
    item.append(title, detail);
    return item;
  }));
}

function drawHeader() {
  const status = view.status;
  const state = status?.state ?? "down";
  element("node").textContent = status?.node ?? "Headwater";
  document.title = `${status?.node ?? "node"} · Headwater`;
  element("state").textContent = state;
  element("state").className = `pill ${state}`;
  const facts = { readings: show(view.totals.readings ?? 0), windows: show(view.totals.windows ?? 0), devices: show(view.totals.devices ?? 0) };
  if (status?.central) {
    facts["link to central"] = status.central.state;
    facts.backlog = `${show(status.central.backlog_records ?? 0)} records`;
  }
  if (status?.version) facts.version = status.version;
  element("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => {
    const pair = document.createElement("div");
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    text.id = `fact-${name.replaceAll(" ", "-")}`;
    pair.append(term, text);
    return pair;
  }));
  const problems = status?.problems ?? (status ? [] : ["The node's core process does not answer."]);
  element("problems").hidden = problems.length === 0;
  element("problems").replaceChildren(...problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

function drawChoices() {
  const chosen = element("device");
  const names = [...view.devices.keys()].sort();
  if (chosen.options.length === names.length + 1) return;
  const value = chosen.value;
  chosen.replaceChildren(new Option("all devices", ""), ...names.map((name) => new Option(name, name)));
  chosen.value = names.includes(value) ? value : "";
}

let chartsRestUntil = 0;

function draw() {
  drawHeader();
  drawAlerts();
  drawChoices();
  drawTables();
  const began = performance.now();
  if (began < chartsRestUntil) return;
  drawCharts();
  chartsRestUntil = performance.now() + 2 * (performance.now() - began); // a slow phone spends a third of its time on charts
}

// --- the stream ---------------------------------------------------------------------------------------

function follow() {
  const stream = new EventSource("/api/v1/stream");
  stream.onmessage = (event) => {
    take(JSON.parse(event.data));
    if (!document.hidden) draw();
  };
  stream.onerror = () => {
    element("state").textContent = "page cut off";
    element("state").className = "pill down";
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 3000); // refused, not merely cut: try anew
  };
}

element("device").addEventListener("change", drawCharts);
element("span").addEventListener("change", drawCharts);
document.addEventListener("visibilitychange", () => { if (!document.hidden) draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
follow();
