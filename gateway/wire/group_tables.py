"""The messages of consumer groups, and Kafka's records of them in `__consumer_offsets`; see `gateway.wire.tables`."""

from __future__ import annotations

MEMBERSHIP = """
JoinGroup 11 0-9 flexible 6
request
  group_id:string session_timeout_ms:int32 rebalance_timeout_ms:int32@1+=-1 member_id:string
  group_instance_id:string@5+?=null protocol_type:string
  protocols[] { name:string metadata:bytes }
  reason:string@8+?=null
response
  throttle_time_ms:int32@2+=0 error_code:int16 generation_id:int32=-1 protocol_type:string@7+?=null
  protocol_name:string?7+ leader:string skip_assignment:bool@9+=false member_id:string
  members[] { member_id:string group_instance_id:string@5+?=null metadata:bytes }

SyncGroup 14 0-5 flexible 4
request
  group_id:string generation_id:int32 member_id:string group_instance_id:string@3+?=null
  protocol_type:string@5+?=null protocol_name:string@5+?=null
  assignments[] { member_id:string assignment:bytes }
response
  throttle_time_ms:int32@1+=0 error_code:int16 protocol_type:string@5+?=null protocol_name:string@5+?=null
  assignment:bytes

Heartbeat 12 0-4 flexible 4
request
  group_id:string generation_id:int32 member_id:string group_instance_id:string@3+?=null
response
  throttle_time_ms:int32@1+=0 error_code:int16

LeaveGroup 13 0-5 flexible 4
request
  group_id:string member_id:string@0-2=
  members[]@3+=[] { member_id:string group_instance_id:string?=null reason:string@5+?=null }
response
  throttle_time_ms:int32@1+=0 error_code:int16
  members[]@3+=[] { member_id:string group_instance_id:string? error_code:int16 }
"""

OFFSETS = """
OffsetCommit 8 2-9 flexible 8
request
  group_id:string generation_id_or_member_epoch:int32=-1 member_id:string group_instance_id:string@7+?=null
  retention_time_ms:int64@2-4=-1
  topics[] {
    name:string
    partitions[] {
      partition_index:int32 committed_offset:int64 committed_leader_epoch:int32@6+=-1 committed_metadata:string?
    }
  }
response
  throttle_time_ms:int32@3+=0
  topics[] { name:string partitions[] { partition_index:int32 error_code:int16 } }

OffsetFetch 9 1-9 flexible 6
request
  group_id:string@0-7= topics[]@0-7?2-7=[] { name:string partition_indexes:int32[] }
  groups[]@8+=[] {
    group_id:string member_id:string@9+?=null member_epoch:int32@9+=-1
    topics[]? { name:string partition_indexes:int32[] }
  }
  require_stable:bool@7+=false
response
  throttle_time_ms:int32@3+=0
  topics[]@0-7=[] {
    name:string
    partitions[] {
      partition_index:int32 committed_offset:int64 committed_leader_epoch:int32@5-7=-1 metadata:string? error_code:int16
    }
  }
  error_code:int16@2-7=0
  groups[]@8+=[] {
    group_id:string
    topics[] {
      name:string
      partitions[] {
        partition_index:int32 committed_offset:int64 committed_leader_epoch:int32=-1 metadata:string? error_code:int16
      }
    }
    error_code:int16=0
  }

AddOffsetsToTxn 25 0-3 flexible 3
request
  transactional_id:string producer_id:int64 producer_epoch:int16 group_id:string
response
  throttle_time_ms:int32=0 error_code:int16

TxnOffsetCommit 28 0-3 flexible 3
request
  transactional_id:string group_id:string producer_id:int64 producer_epoch:int16
  generation_id:int32@3+=-1 member_id:string@3+= group_instance_id:string@3+?=null
  topics[] {
    name:string
    partitions[] {
      partition_index:int32 committed_offset:int64 committed_leader_epoch:int32@2+=-1 committed_metadata:string?
    }
  }
response
  throttle_time_ms:int32=0
  topics[] { name:string partitions[] { partition_index:int32 error_code:int16 } }
"""

ADMIN = """
DescribeGroups 15 0-5 flexible 5
request
  groups:string[] include_authorized_operations:bool@3+=false
response
  throttle_time_ms:int32@1+=0
  groups[] {
    error_code:int16 group_id:string group_state:string protocol_type:string protocol_data:string
    members[] {
      member_id:string group_instance_id:string@4+?=null client_id:string client_host:string
      member_metadata:bytes member_assignment:bytes
    }
    authorized_operations:int32@3+=-2147483648
  }

ListGroups 16 0-4 flexible 3
request
  states_filter:string[]@4+=[]
response
  throttle_time_ms:int32@1+=0 error_code:int16
  groups[] { group_id:string protocol_type:string group_state:string@4+= }

DeleteGroups 42 0-2 flexible 2
request
  groups_names:string[]
response
  throttle_time_ms:int32=0
  results[] { group_id:string error_code:int16 }
"""

# OffsetCommitKey/Value.json and GroupMetadataKey/Value.json of Kafka's group coordinator; a key's version says which.
RECORDS = """
OffsetCommitKey - 0-1 flexible never
request
  group:string topic:string partition:int32

OffsetCommitValue - 0-4 flexible 4
request
  offset:int64 leader_epoch:int32@3+=-1 metadata:string commit_timestamp:int64 expire_timestamp:int64@1-1=-1
  topic_id:uuid@4+#0=zero

GroupMetadataKey - 2-2 flexible never
request
  group:string

GroupMetadataValue - 0-4 flexible 4
request
  protocol_type:string generation:int32 protocol:string? leader:string? current_state_timestamp:int64@2+=-1
  members[] {
    member_id:string group_instance_id:string@3+?=null client_id:string client_host:string
    rebalance_timeout:int32@1+=-1 session_timeout:int32 subscription:bytes assignment:bytes
  }
"""

ALL = (MEMBERSHIP, OFFSETS, ADMIN, RECORDS)
