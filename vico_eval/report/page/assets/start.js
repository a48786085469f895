"use strict";

vicoPage.filters.start();
vicoPage.table.start();
vicoPage.plot.start();
vicoPage.samples.start();
vicoPage.state.notify();
