/*
 * scene_use.h
 *		A scene and the tasks that refer to it: neither goes without the other.
 *
 * Who stores a task asks here, after it has, whether the scene is about to go;
 * who deletes a scene does so by SQL, see retry.scene_in_use().
 */
#ifndef RETRY_SCENE_USE_H
#define RETRY_SCENE_USE_H

#include "scene.h"

/*
 * To be called when a task of the scene has been written in this transaction,
 * by the snapshot that the scene was found with, which must be active still.
 * Mostly it looks at one page.  While another transaction deletes or renames
 * the scene it waits for that one's end.  ERROR (undefined_object) when the
 * scene has gone, serialization_failure where the transaction's snapshot has it
 * still, and what waiting raises.
 */
extern void retry_scene_keep(const RetrySceneRow *scene);

/* The same, for a scene of which only the number is known. */
extern void retry_scene_keep_id(int32 id);

#endif							/* RETRY_SCENE_USE_H */
