/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry of a cache's region (src/stages/cache): readers that pin it, one that
 * evicts, one that removes, one that publishes it anew; each of the last three may die
 * between any two steps, and a repair brings on what it left. A step is one access to
 * shared memory; the order is the sequentially consistent one that state.h asks for.
 *
 * What must hold: the memory of an entry is not given up under a pin; at the end nothing
 * is half done. Compiled with TAKE_DEAD the repair takes apart what it finds DEAD without
 * a look at the pins: spin must find that to be wrong.
 */
#ifndef READERS
#define READERS 1 /* 2: some 10^8 states */
#endif

mtype = { FREE, CLAIMED, LIVE, EVICTING, GONE, DEAD };

mtype phase = LIVE;
byte flips = 0, life = 0, owner = 0;
bool given = false; /* the memory of this life is */
bool pin[READERS];
byte pin_life[READERS];
bool died[4]; /* 1 evicts, 2 removes, 3 publishes */
byte ended = 0;

/* A compare-and-swap of the entry's whole state; flips count what changes in a life. */
inline cas(from, from_flips, from_life, to, to_owner, ok) {
	atomic {
		if
		:: phase == from && flips == from_flips && life == from_life ->
			phase = to; flips = flips + 1; owner = to_owner; ok = true
		:: else -> ok = false
		fi
	}
}

inline look(p, f, l) {
	atomic { p = phase; f = flips; l = life }
}

inline look_at_pins(l, found) {
	found = false;
	if :: pin[0] && pin_life[0] == l -> found = true :: else fi;
#if READERS > 1
	if :: pin[1] && pin_life[1] == l -> found = true :: else fi
#endif
}

/* DEAD by the caller, and pinned by nobody: its slots, then itself, in its next life. */
inline take_apart() {
	given = true;
	atomic { given = false; phase = FREE; flips = 0; life = life + 1; owner = 0 }
}

inline reclaim(me, p, f, l, ok, found) {
	look(p, f, l);
	if
	:: p == GONE ->
		cas(GONE, f, l, DEAD, me, ok);
		if
		:: ok ->
			may_die(me);
			look_at_pins(l, found);
			may_die(me);
			if
			:: found -> cas(DEAD, f + 1, l, GONE, 0, ok)
			:: else -> take_apart()
			fi
		:: else
		fi
	:: else
	fi
}

inline may_die(me) {
	if
	:: me > 0 && me < 4 -> died[me] = true; goto over
	:: true
	fi
}

proctype reader(byte me) {
	mtype p; byte f, l, mine; bool ok, found;

	look(p, f, mine);
	if
	:: p == LIVE || p == EVICTING ->
		atomic { pin[me] = true; pin_life[me] = mine }
		do
		:: look(p, f, l);
			if
			:: l != mine -> break
			:: l == mine && p == LIVE ->
				assert(!given && life == mine);
				assert(!given && life == mine); /* and for as long as it reads */
				break
			:: l == mine && p == EVICTING -> cas(EVICTING, f, l, LIVE, 0, ok)
			:: else -> break
			fi
		od;
		pin[me] = false;
		reclaim(4, p, f, l, ok, found)
	:: else
	fi;
over:	ended++
}

proctype evictor() {
	mtype p; byte f, l; bool ok, found;

	look(p, f, l);
	if
	:: p == LIVE ->
		cas(LIVE, f, l, EVICTING, 1, ok);
		if
		:: ok ->
			may_die(1);
			look_at_pins(l, found);
			may_die(1);
			if
			:: found -> cas(EVICTING, f + 1, l, LIVE, 0, ok)
			:: else ->
				cas(EVICTING, f + 1, l, DEAD, 1, ok);
				if
				:: ok -> may_die(1); take_apart()
				:: else
				fi
			fi
		:: else
		fi
	:: else
	fi;
over:	ended++
}

proctype remover() {
	mtype p; byte f, l; bool ok, found;

	ok = false;
	do
	:: look(p, f, l);
		if
		:: p == LIVE || p == EVICTING ->
			cas(p, f, l, GONE, 0, ok);
			if :: ok -> break :: else fi
		:: else -> break
		fi
	od;
	may_die(2);
	reclaim(2, p, f, l, ok, found);
over:	ended++
}

proctype publisher() {
	mtype p; byte f, l; bool ok;

	look(p, f, l);
	if
	:: p == FREE ->
		cas(FREE, f, l, CLAIMED, 3, ok);
		if
		:: ok ->
			may_die(3);
			phase = LIVE; /* a plain store: nobody else changes it meanwhile */
		:: else
		fi
	:: else
	fi;
over:	ended++
}

inline repair(dead, p, f, l, ok, found) {
	look(p, f, l);
	if
	:: owner == dead && p == EVICTING -> cas(EVICTING, f, l, LIVE, 0, ok)
	:: owner == dead && p == CLAIMED -> cas(CLAIMED, f, l, DEAD, 5, ok); if :: ok -> take_apart() :: else fi
	:: owner == dead && p == DEAD ->
#ifdef TAKE_DEAD
		cas(DEAD, f, l, DEAD, 5, ok); if :: ok -> take_apart() :: else fi
#else
		cas(DEAD, f, l, GONE, 0, ok)
#endif
	:: else
	fi;
	reclaim(5, p, f, l, ok, found);
	died[dead] = false
}

init {
	mtype p; byte f, l, i; bool ok, found;

	atomic {
		run reader(0);
#if READERS > 1
		run reader(1);
#endif
		run evictor(); run remover(); run publisher()
	}
	/* Beside those that live. */
	do
	:: died[1] -> repair(1, p, f, l, ok, found)
	:: died[2] -> repair(2, p, f, l, ok, found)
	:: died[3] -> repair(3, p, f, l, ok, found)
	:: ended == READERS + 3 && !died[1] && !died[2] && !died[3] -> break
	od;
	reclaim(5, p, f, l, ok, found);
	assert(phase == FREE || phase == LIVE);
over:	skip
}
