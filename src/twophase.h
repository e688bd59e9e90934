/*
 * twophase.h
 *		Two-phase commits over several PostgreSQL servers.
 *
 * Sessions decide over all modes in one place (advance.c); this is what that has
 * to do for one mode more.
 */
#ifndef RETRY_TWOPHASE_H
#define RETRY_TWOPHASE_H

#include "global.h"
#include "scene.h"

/*
 * What comes before the decision to commit one, whose row is locked: all servers
 * are asked whether its branches are prepared, and the operations are stored
 * that commit them.  ERROR unless all are prepared, or a server cannot be asked.
 */
extern void retry_twophase_before_commit(const RetryGlobal *global, const RetrySceneRow *scene);

#endif							/* RETRY_TWOPHASE_H */
