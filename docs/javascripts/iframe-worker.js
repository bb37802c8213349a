// The search of a page opened from a folder: browsers start no Worker from file://, so an invisible
// frame does its work. Over http nothing changes.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc =
        `<script>self.postMessage = (data) => parent.postMessage(data, "*")</script>` +
        `<script src="${new URL(url, location.href)}"></script>`;
      this.ready = new Promise((done) => this.frame.addEventListener("load", done));
      document.body.append(this.frame);
      addEventListener("message", (event) => {
        if (event.source !== this.frame.contentWindow) return;
        this.dispatchEvent(new MessageEvent("message", { data: event.data }));
      });
    }
    postMessage(data) {
      this.ready.then(() => postMessage.call(this.frame.contentWindow, data, "*"));
    }
    terminate() {
      this.frame.remove();
    }
  };
