// The page's side of its workers.

/** A worker that runs the text of the element `engine`; `ask` gives promises. */
export class Engine {
  constructor(given) {
    const code = document.getElementById("engine").textContent;
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(address);
    URL.revokeObjectURL(address);
    this.waiting = new Map();
    this.count = 0;
    this.newest = new Map();
    this.worker.onmessage = ({ data: { id, result, error, progress } }) => {
      const { resolve, reject, onProgress } = this.waiting.get(id);
      if (progress) return onProgress(progress);
      this.waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    this.ask("start", given);
  }

  ask(task, given, onProgress = () => {}) {
    const id = this.count++;
    this.worker.postMessage({ id, task, given });
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject, onProgress }));
  }

  /**
   * `ask` for what changes faster than it is computed: while one call under `key` runs, only
   * the newest of those after it is kept. `show` gets each result.
   */
  async latest(key, task, given, show) {
    const running = this.newest.has(key);
    this.newest.set(key, { task, given, show });
    if (running) return;
    let last;
    while ((last = this.newest.get(key)) !== null) {
      this.newest.set(key, null);
      await last.show(await this.ask(last.task, last.given));
    }
    this.newest.delete(key);
  }

  stop() {
    this.worker.terminate();
  }
}
