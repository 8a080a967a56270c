/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block of two shards in a cache's region (src/stages/cache/block.c) that is filled shard by
 * shard: two processes fill what is absent, each of which may die between any two steps with its
 * I/O still on its way, or fail; a repair takes back what the dead had, and another goes on with it.
 * Somebody else takes a slot that is free. Nobody removes the block: each of them has it pinned
 * (cache.pml). A step is one access to shared memory.
 *
 * What must hold: a shard that is there has its bytes, and a slot that is its own; a block that is
 * whole has all its shards there; at the end it is whole, and no slot is lost.
 * Compiled with LAST_INDEX the block is whole with its last shard, with LOOK_FIRST a filler looks at
 * all shards before it puts its own there, with LINK_LATE a slot is the block's only after its shard
 * is there, with NO_SETTLE a repair does not look whether all are there, with EARLY_REPAIR it does
 * not wait for the I/O of the dead: spin must find each to be wrong.
 */
#define SHARDS 2
#define SLOTS  3
#define THIEF  3
#define NOBODY 0

mtype = { ABSENT, FILLING, THERE };  /* a shard */
mtype = { FREE, RESERVED, LINKED };  /* a slot */
mtype = { EMPTY, HALF, BYTES, OTHER }; /* what lies in it */

mtype shard[SHARDS] = ABSENT;
byte filler[SHARDS], at[SHARDS]; /* whose, and in which slot */
mtype slot[SLOTS] = FREE;
byte holder[SLOTS]; /* of a RESERVED one; of a LINKED one NOBODY: the block, or THIEF */
mtype payload[SLOTS] = EMPTY;
bool whole = false;
byte io[3]; /* on its way: slot + 1 */
bool died[3];
byte over = 0;

inline may_die(me) {
	if
	:: me > 0 -> died[me] = true; goto out
	:: true
	fi
}

/* RESERVED by @me from now on. */
inline take(me, s) {
	atomic {
		slot[0] == FREE || slot[1] == FREE || slot[2] == FREE;
		s = (slot[0] == FREE -> 0 : (slot[1] == FREE -> 1 : 2));
		slot[s] = RESERVED; holder[s] = me
	}
}

inline give(me, s) {
	atomic {
		if
		:: slot[s] == RESERVED && holder[s] == me ->
			slot[s] = FREE; holder[s] = NOBODY; payload[s] = EMPTY
		:: else
		fi
	}
}

/* What a reader may meet from now on. */
inline look(i) {
	assert(slot[at[i]] == LINKED && holder[at[i]] == NOBODY);
	assert(payload[at[i]] == BYTES)
}

inline make_whole() {
	atomic { whole = true; assert(shard[0] == THERE && shard[1] == THERE) }
}

/* Whole, if all are there: one look at each. */
inline settle(me) {
	if
	:: shard[0] == THERE ->
		may_die(me);
		if
		:: shard[1] == THERE -> may_die(me); make_whole()
		:: else
		fi
	:: else
	fi
}

inline link(me, s) {
	atomic {
		assert(slot[s] == RESERVED && holder[s] == me);
		slot[s] = LINKED; holder[s] = NOBODY
	}
}

inline publish(me, i, s) {
#ifdef LOOK_FIRST
	all = (shard[1 - (i)] == THERE);
	may_die(me);
#endif
#ifndef LINK_LATE
	link(me, s);
	may_die(me);
#endif
	atomic {
		assert(shard[i] == FILLING && filler[i] == me && at[i] == s);
		shard[i] = THERE; filler[i] = NOBODY;
		look(i)
	}
	may_die(me);
#ifdef LINK_LATE
	link(me, s);
	may_die(me);
#endif
#ifdef LOOK_FIRST
	if :: all -> make_whole() :: else fi
#else
#ifdef LAST_INDEX
	if :: i + 1 == SHARDS -> make_whole() :: else fi
#else
	settle(me)
#endif
#endif
}

/* One shard, if it is absent; one that another fills is waited for, or left. */
inline fill(me, i, s, claimed) {
	if
	:: shard[i] == ABSENT ->
		take(me, s);
		may_die(me);
		atomic {
			claimed = (shard[i] == ABSENT);
			if :: claimed -> shard[i] = FILLING; filler[i] = me; at[i] = s :: else fi
		}
		may_die(me);
		if
		:: !claimed -> give(me, s)
		:: claimed ->
			if
			:: me > 0 -> io[me] = s + 1; may_die(me); io[me] == 0
			:: else -> payload[s] = BYTES
			fi;
			if
			:: publish(me, i, s)
			:: me > 0 -> /* it failed */
				atomic { shard[i] = ABSENT; filler[i] = NOBODY; at[i] = 0 }
				may_die(me);
				give(me, s)
			fi
		fi
	:: shard[i] == THERE
	:: me > 0 && shard[i] == FILLING
	fi
}

/* What the kernel does, whether who asked for it lives or not. */
proctype disk(byte me) {
end:	do
	:: io[me] != 0 ->
		payload[io[me] - 1] = HALF;
		payload[io[me] - 1] = BYTES;
		io[me] = 0
	od
}

proctype fills(byte me) {
	byte s;
	bool claimed, all;

	/* From one end and from the other. */
	fill(me, me - 1, s, claimed);
	fill(me, 2 - me, s, claimed);
out:	atomic { s = 0; claimed = false; all = false; over++ }
}

/* A block of one shard: its slot comes and goes. */
proctype thief() {
	byte s;

	take(THIEF, s);
	payload[s] = OTHER;
	slot[s] = LINKED;
	assert(payload[s] == OTHER);
	assert(payload[s] == OTHER); /* and for as long as it is read */
	assert(slot[s] == LINKED && holder[s] == THIEF);
	atomic { slot[s] = FREE; holder[s] = NOBODY; payload[s] = EMPTY; s = 0; over++ }
}

inline reset(dead, i, s) {
	if
	:: atomic { shard[i] == FILLING && filler[i] == dead ->
		shard[i] = ABSENT; filler[i] = NOBODY; s = at[i]; at[i] = 0 }
		/* It may have died between linking the slot and telling so. */
		atomic {
			if
			:: slot[s] == LINKED && holder[s] == NOBODY -> slot[s] = FREE; payload[s] = EMPTY
			:: else
			fi
		}
	:: shard[i] != FILLING || filler[i] != dead
	fi
}

inline repair(dead, s) {
#ifndef EARLY_REPAIR
	io[dead] == 0; /* its lock is free only then */
#endif
	reset(dead, 0, s);
	reset(dead, 1, s);
#ifndef NO_SETTLE
	settle(0);
#endif
	give(dead, 0);
	give(dead, 1);
	give(dead, 2);
	died[dead] = false
}

init {
	byte s;
	bool claimed, all;

	atomic { run disk(1); run disk(2); run fills(1); run fills(2); run thief() }
	do
	:: died[1] -> repair(1, s)
	:: died[2] -> repair(2, s)
	:: over == 3 && !died[1] && !died[2] -> break
	od;
	/* What they left is absent: who comes next makes it whole. */
	fill(0, 0, s, claimed);
	fill(0, 1, s, claimed);
	assert(whole);
	look(0);
	look(1);
	assert(at[0] != at[1]);
	assert((slot[0] == FREE) + (slot[1] == FREE) + (slot[2] == FREE) == 1);
out:	skip
}
