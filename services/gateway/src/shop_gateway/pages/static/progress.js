// Shows the progress of an order as it happens. Without this script the page loads itself again now and then.
"use strict";
const state = document.getElementById("state");
const events = new EventSource(state.dataset.progress);
events.addEventListener("order", (event) => {
  const order = JSON.parse(event.data);
  if (state.textContent !== order.state) state.textContent = order.state;
  document.getElementById("attention").textContent = order.attention;
  if (order.ended) {
    events.close();
    location.reload(); // the page of an order that has ended says more
  }
});
