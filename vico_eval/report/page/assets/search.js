"use strict";

// Search in questions, targets, answers and document ids. Documents are in files that are loaded one after the other,
// so results appear as they are found, and the search can be stopped.
vicoPage.search = (() => {
  const EVERY = 200; // ms between updates of the results
  const BEFORE = 40; // characters shown before a match

  let job = null; // the current search: its words, the searched files, and the documents found
  let isRunning = false;

  // All texts of a document, each with its place.
  function* texts(spot, shown) {
    const { rows } = vicoPage.data.report;
    yield ["Document", `${spot.benchmark.title} ${spot.id}`];
    yield ["Prompt", shown.question];
    yield ["Target", shown.target];
    for (const [row, own] of shown.rows.entries()) {
      if (!own) continue;
      for (const text of [own.answer, own.reply, own.failure, own.question]) if (text) yield [rows[row].title, text];
    }
  }

  // The first match in a document: its place and the text around it; null if there is none.
  function find(words, spot, shown) {
    const wanted = words.toLowerCase();
    for (const [where, text] of texts(spot, shown)) {
      const lower = text.toLowerCase();
      const at = lower.indexOf(wanted);
      if (at < 0) continue;
      // A few letters become two in lower case, which shifts the positions after them.
      const own = lower.length === text.length ? text : lower;
      const start = Math.max(0, at - BEFORE);
      return {
        where,
        before: `${start ? "…" : ""}${own.slice(start, at)}`,
        words: own.slice(at, at + wanted.length),
        after: vicoPage.shorten(own.slice(at + wanted.length), BEFORE),
      };
    }
    return null;
  }

  // Start or continue a search through `candidates` (document numbers), calling `tell` with progress.
  function start(words, candidates, tell) {
    if (job?.words !== words) job = { words, looked: new Set(), found: new Set(), isStopped: false };
    job.needed = [...new Set(candidates.map(vicoPage.chunks.of))].sort((one, other) => one - other);
    job.tell = tell;
    if (!isRunning) run();
  }

  async function run() {
    isRunning = true;
    const looking = setInterval(() => job?.tell(), EVERY);
    try {
      for (let next = left(); next !== undefined && !job.isStopped; next = left()) {
        const own = job;
        const documents = await vicoPage.chunks.all(next);
        const first = vicoPage.data.report.chunks[next];
        documents.forEach((shown, place) => {
          if (find(own.words, vicoPage.samples.place(first + place), shown)) own.found.add(first + place);
        });
        own.looked.add(next);
      }
    } catch (error) {
      if (job) job.isStopped = true;
      job?.tell(error);
      return;
    } finally {
      clearInterval(looking);
      isRunning = false;
    }
    job?.tell();
  }

  const left = () => job?.needed.find((chunk) => !job.looked.has(chunk));

  function end() {
    job = null;
  }

  function stop(isStopped) {
    job.isStopped = isStopped;
    if (!isStopped && !isRunning) run();
  }

  function status() {
    return {
      isDone: left() === undefined,
      isStopped: job.isStopped,
      // Share of files, not documents, since a file is searched at once.
      share: job.needed.length ? job.needed.filter((chunk) => job.looked.has(chunk)).length / job.needed.length : 1,
      has: (which) => job.found.has(which),
      looked: (which) => job.looked.has(vicoPage.chunks.of(which)),
    };
  }

  return { start, end, stop, status, find };
})();
