/**
 * Requests by which a node says things about itself: set_hostname, set_visibility, set_tags, set_task_exec (pilot
 * protocol §6.3). Each is signed by the node; the signed text does not cover the value, so these are only as safe as the
 * connection they came over (§11.11).
 */
import {
  booleanField,
  isHostname,
  MAX_TAG_CHARS,
  MAX_TAGS,
  REQUEST_FAILED,
  type RegistryMessage,
  signedText,
  textsField,
} from "../wire/registry.ts";
import { hostnameTaken, takeHostname } from "./hostnames.ts";
import { type Reply, type RequestContext, type RequestHandler, refusal, signedBy } from "./request-context.ts";
import type { NodeRecord } from "./store.ts";

export const PROFILE_REQUESTS: Record<string, RequestHandler> = {
  set_hostname: signedBy("node_id", signedText.setHostname, setHostname),
  set_visibility: signedBy("node_id", signedText.setVisibility, setVisibility),
  set_tags: signedBy("node_id", signedText.setTags, setTags),
  set_task_exec: signedBy("node_id", signedText.setTaskExec, setTaskExec),
};

/** The empty name gives the name up. */
function setHostname(node: NodeRecord, message: RegistryMessage, context: RequestContext): Reply {
  const hostname = message["hostname"];
  if (typeof hostname !== "string") return refusal(REQUEST_FAILED);
  if (hostname !== "" && !isHostname(hostname)) return refusal("invalid hostname");
  if (hostname !== "" && !takeHostname(hostname, node.node, context)) return refusal(hostnameTaken(hostname));
  context.store.updateNode({ ...node, hostname: hostname === "" ? undefined : hostname });
  return { type: "set_hostname_ok", node_id: node.node, hostname };
}

function setVisibility(node: NodeRecord, message: RegistryMessage, context: RequestContext): Reply {
  const isPublic = booleanField(message, "public");
  if (isPublic === undefined) return refusal(REQUEST_FAILED);
  context.store.updateNode({ ...node, isPublic });
  return {
    type: "set_visibility_ok",
    node_id: node.node,
    visibility: isPublic ? "public" : "private",
  };
}

function setTags(node: NodeRecord, message: RegistryMessage, context: RequestContext): Reply {
  const tags = textsField(message, "tags", MAX_TAGS, MAX_TAG_CHARS);
  if (tags === undefined) return refusal("invalid tags");
  context.store.updateNode({ ...node, tags });
  return { type: "set_tags_ok", node_id: node.node, tags };
}

function setTaskExec(node: NodeRecord, message: RegistryMessage, context: RequestContext): Reply {
  const taskExec = booleanField(message, "enabled");
  if (taskExec === undefined) return refusal(REQUEST_FAILED);
  context.store.updateNode({ ...node, taskExec });
  return { type: "set_task_exec_ok", node_id: node.node, enabled: taskExec };
}
