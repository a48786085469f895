"use strict";

// Looks for text in questions, targets, answers and the documents' numbers. Documents lie in files that are loaded one
// after the other, so what is found is shown as it is found, and the search can be stopped.
vicoPage.search = (() => {
  const EVERY = 200; // ms between two looks at what was found
  const BEFORE = 40; // characters shown before what was found

  let job = null; // the latest words: the files that were looked through, and the documents found
  let isRunning = false;

  // All texts of a document, each with where it is.
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

  // Where a document has the words: the place and the text around them; null where it doesn't.
  function find(words, spot, shown) {
    const wanted = words.toLowerCase();
    for (const [where, text] of texts(spot, shown)) {
      const lower = text.toLowerCase();
      const at = lower.indexOf(wanted);
      if (at < 0) continue;
      // A few letters are two in lower case, behind which the places differ.
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

  // What is found of `candidates` (documents' numbers) so far; goes on looking, and calls `tell` as it does.
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
      // Of files, not documents: those of a file are looked through at once.
      share: job.needed.length ? job.needed.filter((chunk) => job.looked.has(chunk)).length / job.needed.length : 1,
      has: (which) => job.found.has(which),
      looked: (which) => job.looked.has(vicoPage.chunks.of(which)),
    };
  }

  return { start, end, stop, status, find };
})();
