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
import { type Reply, type RequestContext, type RequestHandler, refusal, signer } from "./request-context.ts";

export const PROFILE_REQUESTS: Record<string, RequestHandler> = {
  set_hostname: setHostname,
  set_visibility: setVisibility,
  set_tags: setTags,
  set_task_exec: setTaskExec,
};

/** The empty name gives the name up. */
function setHostname(message: RegistryMessage, context: RequestContext): Reply {
  const checked = signer(message, "node_id", signedText.setHostname, context);
  if ("refused" in checked) return checked.refused;
  const { node } = checked;
  const hostname = message["hostname"];
  if (typeof hostname !== "string") return refusal(REQUEST_FAILED);
  if (hostname !== "" && !isHostname(hostname)) return refusal("invalid hostname");
  if (hostname !== "" && !takeHostname(hostname, node.node, context)) return refusal(hostnameTaken(hostname));
  context.store.updateNode({ ...node, hostname: hostname === "" ? undefined : hostname });
  return { type: "set_hostname_ok", node_id: node.node, hostname };
}

function setVisibility(message: RegistryMessage, context: RequestContext): Reply {
  const checked = signer(message, "node_id", signedText.setVisibility, context);
  if ("refused" in checked) return checked.refused;
  const isPublic = booleanField(message, "public");
  if (isPublic === undefined) return refusal(REQUEST_FAILED);
  context.store.updateNode({ ...checked.node, isPublic });
  return {
    type: "set_visibility_ok",
    node_id: checked.node.node,
    visibility: isPublic ? "public" : "private",
  };
}

function setTags(message: RegistryMessage, context: RequestContext): Reply {
  const checked = signer(message, "node_id", signedText.setTags, context);
  if ("refused" in checked) return checked.refused;
  const tags = textsField(message, "tags", MAX_TAGS, MAX_TAG_CHARS);
  if (tags === undefined) return refusal("invalid tags");
  context.store.updateNode({ ...checked.node, tags });
  return { type: "set_tags_ok", node_id: checked.node.node, tags };
}

function setTaskExec(message: RegistryMessage, context: RequestContext): Reply {
  const checked = signer(message, "node_id", signedText.setTaskExec, context);
  if ("refused" in checked) return checked.refused;
  const taskExec = booleanField(message, "enabled");
  if (taskExec === undefined) return refusal(REQUEST_FAILED);
  context.store.updateNode({ ...checked.node, taskExec });
  return { type: "set_task_exec_ok", node_id: checked.node.node, enabled: taskExec };
}
