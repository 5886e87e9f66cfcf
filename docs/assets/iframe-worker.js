/* Search from the disk: browsers start no worker there, so its script runs in a frame. Material takes this file for the
   polyfill of the same name, which it would fetch from elsewhere. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html><title>search</title>";
      this.ready = new Promise((done) => frame.addEventListener("load", done, { once: true })).then(() => {
        this.inside = frame.contentWindow;
        this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        this.inside.importScripts = (...more) => more.reduce((before, next) => before.then(() => this.load(next)), Promise.resolve());
        return this.load(address);
      });
      document.body.append(frame);
    }

    load(address) {
      return new Promise((done, failed) => {
        const script = this.inside.document.createElement("script");
        script.src = new URL(address, location.href);
        script.addEventListener("load", done);
        script.addEventListener("error", failed);
        this.inside.document.head.append(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })));
    }

    terminate() {}
  };
}
