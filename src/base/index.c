/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory: this struct, then the entries, then the bucket heads, each on
 * pages of its own. All of it starts as zeros and is taken as it is first
 * written; so a bucket holds an entry's number plus one, and 0 is empty.
 *
 * Beyond the header's invariants:
 *  6. Entries [0, fresh) have been used; those that are free again are chained
 *     from `freed` by hash_next.
 *  7. bucket_count is at least twice the entries in use, up to bucket_max, and
 *     at least INDEX_BUCKETS_MIN; bucket b is split from b minus the largest power of
 *     two not above b.
 *  8. runs[] has the latest distinct stamps in the order, ascending, each with
 *     its hottest entry. It is empty only when the order is; what is in the
 *     order below runs[0] has stamps below runs[0].
 *  9. `hand` is where the search for victims goes on: `passed` entries from the
 *     cold end up to it could not go when it passed them. INDEX_NONE: the end.
 */
#include "base/index.h"

#include <assert.h>
#include <string.h>

#include "base/index_layout.h"
#include "base/wrong.h"

#define INDEX_MAGIC	 0x78646e69u
#define PARENT_STEPS_MAX 64u /* the header's promise */
#define VICTIM_STEPS	 64u /* looked at again for each victim asked for */
#define BATCH_MIN	 8u
#define BATCH_MAX	 128u /* lines in flight hide the memory's latency; more do not fit */

struct run {
	uint64_t stamp;
	uint32_t hottest;
};

struct index {
	uint32_t magic;
	uint32_t entries_max;
	uint64_t seed[3];
	struct index_entry *entries;
	uint32_t *buckets;
	uint64_t bucket_count, bucket_max;
	uint64_t bucket_mask; /* of the round of splits under way: 2^n - 1 <= bucket_count - 1 */
	uint32_t fresh, freed;
	uint32_t counts[4]; /* by enum index_state; [INDEX_FREE] is not kept */
	uint32_t coldest, hottest;
	uint32_t hand;
	uint64_t passed, victim_calls; /* since the hand last stood at the cold end */
	uint32_t run_count;
	struct run runs[INDEX_RUNS];
};

static_assert(sizeof(struct index) <= INDEX_PAGE_BYTES, "the entries begin on the second page");
static_assert(sizeof(struct index_entry) == 96, "one cache line for a lookup");
static_assert(offsetof(struct index_entry, flags) < 32, "one cache line for a lookup");

/* The finaliser of splitmix64. */
static uint64_t scramble(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

void index_init(void *memory, uint32_t entries_max, uint64_t seed, struct index **ret_index)
{
	const struct index_layout layout = index_layout_of(entries_max);
	struct index *index = memory;
	char *base = memory;

	assert((uintptr_t)memory % INDEX_PAGE_BYTES == 0);
	assert(entries_max > 0 && entries_max < INDEX_NONE - 1);
	assert(index->magic == 0); /* zeroed, or nothing of the above holds */
	index->magic = INDEX_MAGIC;
	index->entries_max = entries_max;
	for (int i = 0; i < 3; i++)
		index->seed[i] = seed = scramble(seed);
	index->entries = (struct index_entry *)(void *)(base + layout.entries_at);
	index->buckets = (uint32_t *)(void *)(base + layout.buckets_at);
	index->bucket_max = layout.bucket_max;
	index->bucket_count = INDEX_BUCKETS_MIN;
	index->bucket_mask = INDEX_BUCKETS_MIN - 1;
	index->freed = INDEX_NONE;
	index->coldest = index->hottest = index->hand = INDEX_NONE;
	*ret_index = index;
}

void index_huge_ranges(const struct index *index, struct index_range ret_ranges[INDEX_RANGES])
{
	struct index_layout layout = index_layout_of(index->entries_max);

	assert(index->magic == INDEX_MAGIC);
	ret_ranges[0] = index_huge_range(index->entries, layout.entries_bytes);
	ret_ranges[1] = index_huge_range(index->buckets, layout.buckets_bytes);
}

static struct index_entry *entry_of(const struct index *index, uint32_t entry)
{
	return entry == INDEX_NONE ? NULL : &index->entries[entry];
}

struct index_entry *index_at(struct index *index, uint32_t entry)
{
	assert(index->magic == INDEX_MAGIC);
	assert(entry < index->fresh);
	assert(index->entries[entry].state != INDEX_FREE);
	return &index->entries[entry];
}

uint32_t index_id(const struct index *index, const struct index_entry *entry)
{
	assert(entry >= index->entries && entry < index->entries + index->fresh);
	return (uint32_t)(entry - index->entries);
}

/* ---- the table ---------------------------------------------------------- */

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_key(const struct index *index, const struct cairn_key *key, uint64_t space)
{
	uint64_t words[2];

	memcpy(words, key->bytes, sizeof(words));
	return fold(fold(words[0] ^ index->seed[0], words[1] ^ index->seed[1]) ^ space,
		    index->seed[2] | 1);
}

/* Space and generation as one word, scrambled once a batch. */
static uint64_t hash_space(uint32_t space, uint32_t generation)
{
	return scramble((uint64_t)space << 32 | generation);
}

static uint64_t hash_of(const struct index *index, const struct index_key *key)
{
	return hash_key(index, &key->key, hash_space(key->space, key->generation));
}

static uint32_t *bucket_of(const struct index *index, uint64_t hash)
{
	uint64_t bucket = hash & (index->bucket_mask * 2 + 1);

	if (bucket >= index->bucket_count)
		bucket &= index->bucket_mask;
	return &index->buckets[bucket];
}

static bool same_key(const struct index_key *a, const struct index_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static_assert(sizeof(struct index_key) == 24, "compared as bytes: no padding");

struct index_entry *index_find(struct index *index, const struct index_key *key)
{
	uint32_t at = *bucket_of(index, hash_of(index, key));

	assert(index->magic == INDEX_MAGIC);
	while (at) {
		struct index_entry *e = &index->entries[at - 1];

		if (same_key(&e->key, key))
			return e;
		at = e->hash_next;
	}
	return NULL;
}

/* Moves what belongs there to one new bucket at the end. */
static void split_bucket(struct index *index)
{
	uint64_t bucket = index->bucket_count;
	uint32_t *from = &index->buckets[bucket & index->bucket_mask];
	uint32_t *to = &index->buckets[bucket];

	assert(bucket < index->bucket_max && *to == 0);
	index->bucket_count++;
	while (*from) {
		struct index_entry *e = &index->entries[*from - 1];
		uint32_t at = *from;

		if (bucket_of(index, hash_of(index, &e->key)) == to) {
			*from = e->hash_next;
			e->hash_next = *to;
			*to = at;
		} else {
			from = &e->hash_next;
		}
	}
	if (index->bucket_count == index->bucket_mask * 2 + 2)
		index->bucket_mask = index->bucket_mask * 2 + 1;
}

static uint32_t entries_used(const struct index *index)
{
	return index->counts[INDEX_WHOLE] + index->counts[INDEX_PARTIAL] +
	       index->counts[INDEX_GHOST];
}

static void set_state(struct index *index, struct index_entry *e, enum index_state state)
{
	if (e->state != INDEX_FREE)
		index->counts[e->state]--;
	e->state = (uint8_t)state;
	if (state != INDEX_FREE)
		index->counts[state]++;
}

/* NULL: all in use. */
static struct index_entry *entry_make(struct index *index, const struct index_key *key,
				      enum index_state state)
{
	struct index_entry *e;
	uint32_t *bucket;

	if (index->freed != INDEX_NONE) {
		e = &index->entries[index->freed];
		index->freed = e->hash_next;
	} else if (index->fresh < index->entries_max) {
		e = &index->entries[index->fresh++];
	} else {
		return NULL;
	}
	assert(e->state == INDEX_FREE);
	*e = (struct index_entry){
		.key = *key, .older = INDEX_NONE, .newer = INDEX_NONE, .parent = INDEX_NONE};
	set_state(index, e, state);
	/* Two for each new entry keeps invariant 7, and no call is long. */
	for (uint32_t i = 0; i < INDEX_BUCKETS_PER_ENTRY; i++) {
		if (index->bucket_count < index->bucket_max &&
		    index->bucket_count < (uint64_t)entries_used(index) * INDEX_BUCKETS_PER_ENTRY)
			split_bucket(index);
	}
	bucket = bucket_of(index, hash_of(index, key));
	e->hash_next = *bucket;
	*bucket = index_id(index, e) + 1;
	return e;
}

static void entry_free(struct index *index, struct index_entry *e)
{
	uint32_t *at = bucket_of(index, hash_of(index, &e->key));
	uint32_t id = index_id(index, e);

	assert(e->child_count == 0 && e->parent == INDEX_NONE);
	while (*at != id + 1) {
		assert(*at); /* it is in its bucket */
		at = &index->entries[*at - 1].hash_next;
	}
	*at = e->hash_next;
	set_state(index, e, INDEX_FREE);
	e->hash_next = index->freed;
	index->freed = id;
}

/* ---- batches ------------------------------------------------------------ */

struct batch {
	uint32_t at[BATCH_MAX];	     /* the entry to look at next, plus one; 0: absent */
	uint16_t pending[BATCH_MAX]; /* positions that are not answered yet */
	uint64_t space;
	struct index_key key; /* of the batch: space and generation */
};

/* @at: plus one. Both its lines: the caller reads of a found one more than the search does. */
static void fetch_entry(const struct index *index, uint32_t at)
{
	const char *entry = (const char *)&index->entries[at - 1];

	__builtin_prefetch(entry);
	__builtin_prefetch(entry + 64);
}

/* One step along the chain of each key that is not answered; what comes next is fetched ahead. */
static uint32_t batch_round(struct index *index, struct batch *batch, const struct cairn_key *keys,
			    uint32_t pending_count, struct index_entry **ret_entries)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < pending_count; i++) {
		uint16_t p = batch->pending[i];
		struct index_entry *e = &index->entries[batch->at[p] - 1];

		batch->key.key = keys[p];
		if (same_key(&e->key, &batch->key)) {
			ret_entries[p] = e->state == INDEX_WHOLE ? e : NULL;
			continue;
		}
		batch->at[p] = e->hash_next;
		if (!e->hash_next)
			continue;
		fetch_entry(index, e->hash_next);
		batch->pending[left++] = p;
	}
	return left;
}

/* Answers @count <= BATCH_MAX keys. */
static void batch_find(struct index *index, struct batch *batch, const struct cairn_key *keys,
		       uint32_t count, struct index_entry **ret_entries)
{
	const uint32_t *buckets[BATCH_MAX];
	uint32_t pending_count = 0;

	for (uint32_t i = 0; i < count; i++) {
		buckets[i] = bucket_of(index, hash_key(index, &keys[i], batch->space));
		__builtin_prefetch(buckets[i]);
	}
	for (uint32_t i = 0; i < count; i++) {
		ret_entries[i] = NULL;
		batch->at[i] = *buckets[i];
		if (!batch->at[i])
			continue;
		fetch_entry(index, batch->at[i]);
		batch->pending[pending_count++] = (uint16_t)i;
	}
	while (pending_count)
		pending_count = batch_round(index, batch, keys, pending_count, ret_entries);
}

size_t index_find_batch(struct index *index, uint32_t space, uint32_t generation,
			const struct cairn_key *keys, size_t count, bool chain, bool more,
			struct index_entry **ret_entries)
{
	struct batch batch = {
		.space = hash_space(space, generation),
		.key = {.space = space, .generation = generation},
	};
	/* A chain often ends early: begin small. */
	size_t size = chain && !more ? BATCH_MIN : BATCH_MAX;
	size_t found = 0;

	assert(index->magic == INDEX_MAGIC);
	for (size_t done = 0; done < count;) {
		size_t n = count - done < size ? count - done : size;

		batch_find(index, &batch, keys + done, (uint32_t)n, ret_entries + done);
		for (size_t i = 0; i < n; i++) {
			if (ret_entries[done + i])
				found++;
			else if (chain)
				return found;
		}
		done += n;
		size = size * 2 < BATCH_MAX ? size * 2 : BATCH_MAX;
	}
	return found;
}

/* ---- the order ---------------------------------------------------------- */

/* How many runs have a stamp of at most @stamp. */
static uint32_t runs_upto(const struct index *index, uint64_t stamp)
{
	uint32_t low = 0, high = index->run_count;

	if (high && index->runs[high - 1].stamp <= stamp) /* nearly always */
		return high;
	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (index->runs[middle].stamp <= stamp)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void runs_delete(struct index *index, uint32_t at)
{
	index->run_count--;
	memmove(&index->runs[at], &index->runs[at + 1],
		(index->run_count - at) * sizeof(index->runs[0]));
}

static void runs_insert(struct index *index, uint32_t at, uint64_t stamp, uint32_t hottest)
{
	if (index->run_count == INDEX_RUNS) {
		assert(at > 0); /* older ones count as runs[0] */
		runs_delete(index, 0);
		at--;
	}
	memmove(&index->runs[at + 1], &index->runs[at],
		(index->run_count - at) * sizeof(index->runs[0]));
	index->runs[at] = (struct run){.stamp = stamp, .hottest = hottest};
	index->run_count++;
}

/* Puts @e between @older and the one that follows it; INDEX_NONE: at the cold end. */
static void order_link(struct index *index, struct index_entry *e, uint32_t older)
{
	uint32_t id = index_id(index, e);
	uint32_t newer = older == INDEX_NONE ? index->coldest : index->entries[older].newer;

	e->older = older;
	e->newer = newer;
	if (older == INDEX_NONE)
		index->coldest = id;
	else
		index->entries[older].newer = id;
	if (newer == INDEX_NONE)
		index->hottest = id;
	else
		index->entries[newer].older = id;
}

static void order_unlink(struct index *index, struct index_entry *e)
{
	uint32_t id = index_id(index, e);
	struct index_entry *older = entry_of(index, e->older);
	struct index_entry *newer = entry_of(index, e->newer);
	uint32_t run = runs_upto(index, e->stamp);

	assert(index->entries != NULL);
	if (index->hand == id)
		index->hand = e->newer;
	if (older)
		older->newer = e->newer;
	else
		index->coldest = e->newer;
	if (newer)
		newer->older = e->older;
	else
		index->hottest = e->older;
	if (run && index->runs[run - 1].hottest == id) {
		if (older && older->stamp == e->stamp)
			index->runs[run - 1].hottest = e->older;
		else
			runs_delete(index, run - 1);
	}
	if (!index->run_count && index->hottest != INDEX_NONE)
		runs_insert(index, 0, index->entries[index->hottest].stamp, index->hottest);
	e->older = e->newer = INDEX_NONE;
}

/* Invariant 4. */
static void order_place(struct index *index, struct index_entry *e, uint64_t stamp)
{
	uint32_t run = runs_upto(index, stamp);
	const struct index_entry *parent = entry_of(index, e->parent);
	bool forgotten =
		index->run_count && index->entries[index->coldest].stamp < index->runs[0].stamp;

	assert(e->state == INDEX_WHOLE);
	if (run == 0 && (forgotten || index->run_count == INDEX_RUNS)) {
		stamp = index->runs[0].stamp;
		run = 1;
	}
	e->stamp = stamp;
	if (run == 0) {
		order_link(index, e, INDEX_NONE);
		runs_insert(index, 0, stamp, index_id(index, e));
	} else if (index->runs[run - 1].stamp != stamp) {
		order_link(index, e, index->runs[run - 1].hottest);
		runs_insert(index, run, stamp, index_id(index, e));
	} else if (parent && parent->state == INDEX_WHOLE && parent->stamp == stamp) {
		order_link(index, e, parent->older);
	} else {
		order_link(index, e, index->runs[run - 1].hottest);
		index->runs[run - 1].hottest = index_id(index, e);
	}
}

static bool may_go(const struct index_entry *e)
{
	return e->state == INDEX_WHOLE && !e->child_count && !e->pins && !e->holds;
}

static void hand_rewind(struct index *index)
{
	index->hand = index->coldest;
	index->passed = 0;
	index->victim_calls = 0;
}

struct index_entry *index_victim(struct index *index)
{
	assert(index->magic == INDEX_MAGIC);
	/*
	 * The tier drops pins and holds without a word, so what was passed must be
	 * looked at again: each call pays for VICTIM_STEPS of it.
	 */
	if (++index->victim_calls * VICTIM_STEPS >= index->passed)
		hand_rewind(index);
	for (;;) {
		bool all = index->passed == 0;
		struct index_entry *e;

		for (e = entry_of(index, index->hand); e; e = entry_of(index, e->newer)) {
			index->hand = index_id(index, e);
			if (may_go(e))
				return e;
			index->passed++;
		}
		hand_rewind(index);
		if (all)
			return NULL;
	}
}

struct index_entry *index_next(struct index *index, struct index_entry *entry)
{
	assert(index->magic == INDEX_MAGIC);
	assert(!entry || entry->state == INDEX_WHOLE);
	return entry_of(index, entry ? entry->newer : index->coldest);
}

/* ---- entries ------------------------------------------------------------ */

struct index_entry *index_add(struct index *index, const struct index_key *key, bool *ret_made)
{
	struct index_entry *e = index_find(index, key);

	*ret_made = !e || e->state == INDEX_GHOST;
	if (e && e->state == INDEX_GHOST)
		set_state(index, e, INDEX_PARTIAL);
	if (!e)
		e = entry_make(index, key, INDEX_PARTIAL);
	if (!e)
		*ret_made = false;
	return e;
}

static bool leads_back(const struct index *index, const struct index_entry *from,
		       const struct index_entry *to)
{
	for (uint32_t i = 0; from && i <= PARENT_STEPS_MAX; i++) {
		if (from == to)
			return true;
		from = entry_of(index, from->parent);
	}
	return false;
}

bool index_set_parent(struct index *index, struct index_entry *entry,
		      const struct cairn_key *parent)
{
	struct index_key key = entry->key;
	struct index_entry *p;

	assert(entry->state == INDEX_WHOLE || entry->state == INDEX_PARTIAL);
	if (entry->parent != INDEX_NONE)
		return true;
	key.key = *parent;
	p = index_find(index, &key);
	if (p && entry->depth > 0 && p->depth >= entry->depth)
		return true;
	if (leads_back(index, p, entry))
		return true;
	if (!p)
		p = entry_make(index, &key, INDEX_GHOST);
	if (!p)
		return false;
	entry->parent = index_id(index, p);
	p->child_count++;
	return true;
}

void index_publish(struct index *index, struct index_entry *entry, uint64_t stamp)
{
	assert(index->magic == INDEX_MAGIC);
	assert(entry->state == INDEX_PARTIAL);
	set_state(index, entry, INDEX_WHOLE);
	order_place(index, entry, stamp);
}

void index_touch(struct index *index, struct index_entry *entry, uint64_t stamp)
{
	assert(entry->state == INDEX_WHOLE);
	if (stamp <= entry->stamp)
		return;
	order_unlink(index, entry);
	order_place(index, entry, stamp);
}

static void parent_drop(struct index *index, struct index_entry *entry)
{
	struct index_entry *p = entry_of(index, entry->parent);

	if (!p)
		return;
	entry->parent = INDEX_NONE;
	assert(p->child_count > 0);
	p->child_count--;
	if (!p->child_count && p->state == INDEX_GHOST)
		entry_free(index, p);
}

void index_remove(struct index *index, struct index_entry *entry)
{
	assert(index->magic == INDEX_MAGIC);
	assert(entry->state == INDEX_WHOLE || entry->state == INDEX_PARTIAL);
	if (entry->state == INDEX_WHOLE)
		order_unlink(index, entry);
	parent_drop(index, entry);
	if (!entry->child_count) {
		entry_free(index, entry);
		return;
	}
	set_state(index, entry, INDEX_GHOST);
	/* A ghost has a key, a place in its bucket and children, and nothing else. */
	*entry = (struct index_entry){
		.key = entry->key,
		.hash_next = entry->hash_next,
		.state = INDEX_GHOST,
		.older = INDEX_NONE,
		.newer = INDEX_NONE,
		.parent = INDEX_NONE,
		.child_count = entry->child_count,
	};
}

void index_figures(const struct index *index, struct index_figures *ret_figures)
{
	const struct index_layout layout = index_layout_of(index->entries_max);

	assert(index->magic == INDEX_MAGIC);
	*ret_figures = (struct index_figures){
		.whole = index->counts[INDEX_WHOLE],
		.partial = index->counts[INDEX_PARTIAL],
		.ghost = index->counts[INDEX_GHOST],
		.entries_max = index->entries_max,
		.memory_bytes =
			layout.entries_at +
			index_touched(index->entries, index->fresh * sizeof(struct index_entry),
				      layout.entries_bytes) +
			index_touched(index->buckets, index->bucket_count * sizeof(uint32_t),
				      layout.buckets_bytes),
	};
}

/* ---- checking ----------------------------------------------------------- */

struct check {
	const struct index *index;
	struct wrong why;
};

static bool check_entry(const struct check *check, uint32_t id)
{
	const struct index *index = check->index;
	const struct index_entry *e = &index->entries[id];
	uint32_t at = *bucket_of(index, hash_of(index, &e->key));
	uint32_t steps = 0;

	while (at && at - 1 != id && steps++ < index->fresh)
		at = index->entries[at - 1].hash_next;
	if (at - 1 != id)
		return wrong(&check->why, "entry %u is not in its bucket", id);
	if (e->state > INDEX_GHOST)
		return wrong(&check->why, "entry %u has the state %u", id, e->state);
	if (e->state == INDEX_GHOST && (e->parent != INDEX_NONE || !e->child_count))
		return wrong(&check->why, "ghost %u has a parent or no child", id);
	if (e->parent == id)
		return wrong(&check->why, "entry %u is its own parent", id);
	if (e->parent != INDEX_NONE &&
	    (e->parent >= index->fresh || index->entries[e->parent].state == INDEX_FREE))
		return wrong(&check->why, "entry %u has a parent that is not there", id);
	if (e->state != INDEX_WHOLE && (e->older != INDEX_NONE || e->newer != INDEX_NONE))
		return wrong(&check->why, "entry %u is in the order and not whole", id);
	return true;
}

/* Invariants 1, 2, 6. Child counts are compared as sums of a random word for each parent. */
static bool check_entries(const struct check *check)
{
	const struct index *index = check->index;
	uint32_t counts[4] = {0}, freed = 0;
	uint64_t sum = 0;

	for (uint32_t id = 0; id < index->fresh; id++) {
		const struct index_entry *e = &index->entries[id];

		if (e->state == INDEX_FREE) {
			freed++;
			continue;
		}
		if (!check_entry(check, id))
			return false;
		counts[e->state]++;
		sum += e->child_count * scramble(id ^ index->seed[0]);
		if (e->parent != INDEX_NONE)
			sum -= scramble(e->parent ^ index->seed[0]);
	}
	if (sum)
		return wrong(&check->why, "child counts are not those of the children");
	for (int state = INDEX_WHOLE; state <= INDEX_GHOST; state++)
		if (counts[state] != index->counts[state])
			return wrong(&check->why, "%u entries of state %d, counted %u",
				     counts[state], state, index->counts[state]);
	for (uint32_t id = index->freed; id != INDEX_NONE; id = index->entries[id].hash_next)
		if (id >= index->fresh || index->entries[id].state != INDEX_FREE || !freed--)
			return wrong(&check->why, "the chain of free entries is broken at %u", id);
	return freed ? wrong(&check->why, "%u free entries are lost", freed) : true;
}

/* Invariant 7, and that nothing else is in the buckets. */
static bool check_buckets(const struct check *check)
{
	const struct index *index = check->index;
	uint64_t reached = 0, used = entries_used(index);
	uint64_t least = used * INDEX_BUCKETS_PER_ENTRY;

	if (index->bucket_count < (least < index->bucket_max ? least : index->bucket_max) ||
	    index->bucket_count > index->bucket_max)
		return wrong(&check->why, "%llu buckets for %llu entries",
			     (unsigned long long)index->bucket_count, (unsigned long long)used);
	for (uint64_t b = 0; b < index->bucket_count; b++) {
		uint32_t at = index->buckets[b];

		for (; at && reached <= used; at = index->entries[at - 1].hash_next)
			reached++;
	}
	return reached == used ? true
			       : wrong(&check->why, "%llu entries in the buckets, %llu in use",
				       (unsigned long long)reached, (unsigned long long)used);
}

/* Invariants 4, 8. */
static bool check_order(const struct check *check)
{
	const struct index *index = check->index;
	uint32_t run = 0, walked = 0, before = INDEX_NONE;
	uint64_t stamp = 0;

	for (uint32_t id = index->coldest; id != INDEX_NONE; id = index->entries[id].newer) {
		const struct index_entry *e = &index->entries[id];
		const struct index_entry *newer = entry_of(index, e->newer);

		if (e->state != INDEX_WHOLE || e->older != before || e->stamp < stamp ||
		    walked++ == index->counts[INDEX_WHOLE])
			return wrong(&check->why, "the order is broken at entry %u", id);
		stamp = e->stamp;
		before = id;
		if (newer && newer->stamp == stamp)
			continue;
		if (run == 0 && stamp < index->runs[0].stamp)
			continue;
		if (run >= index->run_count || index->runs[run].stamp != stamp ||
		    index->runs[run].hottest != id)
			return wrong(&check->why, "the run of stamp %llu does not end at entry %u",
				     (unsigned long long)stamp, id);
		run++;
	}
	if (walked != index->counts[INDEX_WHOLE] || index->hottest != before)
		return wrong(&check->why, "%u whole entries in the order, counted %u", walked,
			     index->counts[INDEX_WHOLE]);
	return run == index->run_count
		       ? true
		       : wrong(&check->why, "%u runs too many", index->run_count - run);
}

bool index_check(const struct index *index, char *why, size_t why_bytes)
{
	struct check check = {.index = index, .why = {why, why_bytes}};

	assert(index->magic == INDEX_MAGIC);
	return check_entries(&check) && check_buckets(&check) && check_order(&check);
}
