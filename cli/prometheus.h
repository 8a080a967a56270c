/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters and latencies as Prometheus scrapes them: its text format, version 0.0.4.
 * Samples are gathered first, because all of one metric have to stand together.
 */
#ifndef CLI_PROMETHEUS_H
#define CLI_PROMETHEUS_H

#include <stdbool.h>
#include <stdint.h>

#include <cairn/store.h>

#include "options.h"

struct prometheus;

/*
 * For samples that carry @labels too, each "NAME=VALUE", lent until prometheus_free(). On a
 * label that is none, prints why and returns CLI_USAGE, else 0.
 */
int prometheus_new(const struct option_list *labels, struct prometheus **ret_page);
void prometheus_free(struct prometheus *page);

void prometheus_gauge(struct prometheus *page, const char *name, const char *help, double value);
void prometheus_live(struct prometheus *page, const struct cairn_live *live);
void prometheus_counter(struct prometheus *page, const struct cairn_counter *counter);
void prometheus_latency(struct prometheus *page, const struct cairn_latency *latency);

/* Prints the page; CLI_OK or CLI_CANNOT. */
int prometheus_print(const struct prometheus *page);

#endif
