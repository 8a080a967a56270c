/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of the fault stage, as text:
 *
 *	rules   = rule { "," rule }
 *	rule    = operation ":" outcome ":" when
 *	outcome = errno name | "short" (loads only) | "hang"
 *	when    = probability 0 to 1 | "#" n        the n-th call, from 1
 *
 * Pure.
 */
#ifndef FAULT_RULES_H
#define FAULT_RULES_H

#include <stddef.h>
#include <stdint.h>

#define FAULT_RULES_MAX 32

enum fault_outcome { FAULT_NONE, FAULT_ERROR, FAULT_SHORT, FAULT_HANG };

struct fault_rule {
	uint32_t op; /* enum cairn_op */
	enum fault_outcome outcome;
	int32_t error;	    /* negative errno of FAULT_ERROR */
	uint64_t nth;	    /* 0: by probability */
	double probability; /* 0 to 1 */
};

/*
 * Parses @text. Returns how many rules, or -EINVAL with one line in @why (what
 * was wrong, at which character from 1, what would be right), without newline.
 */
int fault_rules_parse(const char *text, struct fault_rule ret_rules[FAULT_RULES_MAX], char *why,
		      size_t why_bytes);

/* Whether @rule hits the @call-th call (from 1) of its operation; the same for the same @seed. */
int fault_rule_hits(const struct fault_rule *rule, uint32_t rule_index, uint64_t call,
		    uint64_t seed);

#endif
