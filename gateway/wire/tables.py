"""The messages that Headwater speaks, as compact tables; `gateway.wire.schema` reads them.

    <name> <API key> <lowest>-<highest served version> flexible <first flexible version>
    request | response
      <field>:<type>@<versions>?<versions in which it may be null>#<tag>=<default>

`@` left out means every version, a bare `?` every version too, and a field with `{ … }` is a structure
(`[]` before it: an array of them). `#n@7+` is a tagged field (KIP-482). A field without a default must be given when a
message is encoded; ListOffsets' replica_id has the only default that is not Kafka's. Names are Kafka's in snake case,
but for AddPartitionsToTxn, whose `v3_and_below` is left out. The source is the protocol guide; a test holds every line
against the JSON that kafka-python ships.
"""

from __future__ import annotations

from gateway.wire import group_tables

DATA = """
Produce 0 3-12 flexible 9
request
  transactional_id:string?=null acks:int16 timeout_ms:int32
  topic_data[] { name:string partition_data[] { index:int32 records:records? } }
response
  responses[] {
    name:string
    partition_responses[] {
      index:int32 error_code:int16 base_offset:int64 log_append_time_ms:int64=-1 log_start_offset:int64@5+=-1
      record_errors[]@8+=[] { batch_index:int32 batch_index_error_message:string?=null }
      error_message:string@8+?=null
      current_leader@10+#0 { leader_id:int32=-1 leader_epoch:int32=-1 }
    }
  }
  throttle_time_ms:int32=0
  node_endpoints[]@10+#0=[] { node_id:int32 host:string port:int32 rack:string?=null }

Fetch 1 4-12 flexible 12
request
  cluster_id:string@12+?#0=null
  replica_id:int32=-1 max_wait_ms:int32 min_bytes:int32 max_bytes:int32=2147483647 isolation_level:int8=0
  session_id:int32@7+=0 session_epoch:int32@7+=-1
  topics[] {
    topic:string
    partitions[] {
      partition:int32 current_leader_epoch:int32@9+=-1 fetch_offset:int64 last_fetched_epoch:int32@12+=-1
      log_start_offset:int64@5+=-1 partition_max_bytes:int32
    }
  }
  forgotten_topics_data[]@7+=[] { topic:string partitions:int32[] }
  rack_id:string@11+=
response
  throttle_time_ms:int32=0 error_code:int16@7+=0 session_id:int32@7+=0
  responses[] {
    topic:string
    partitions[] {
      partition_index:int32 error_code:int16 high_watermark:int64 last_stable_offset:int64=-1
      log_start_offset:int64@5+=-1
      diverging_epoch@12+#0 { epoch:int32=-1 end_offset:int64=-1 }
      current_leader@12+#1 { leader_id:int32=-1 leader_epoch:int32=-1 }
      snapshot_id@12+#2 { end_offset:int64=-1 epoch:int32=-1 }
      aborted_transactions[]? { producer_id:int64 first_offset:int64 }
      preferred_read_replica:int32@11+=-1 records:records?
    }
  }

ListOffsets 2 1-9 flexible 6
request
  replica_id:int32=-1 isolation_level:int8@2+=0
  topics[] { name:string partitions[] { partition_index:int32 current_leader_epoch:int32@4+=-1 timestamp:int64 } }
response
  throttle_time_ms:int32@2+=0
  topics[] {
    name:string
    partitions[] {
      partition_index:int32 error_code:int16 timestamp:int64=-1 offset:int64=-1 leader_epoch:int32@4+=-1
    }
  }

OffsetForLeaderEpoch 23 2-4 flexible 4
request
  replica_id:int32@3+=-2
  topics[] { topic:string partitions[] { partition:int32 current_leader_epoch:int32=-1 leader_epoch:int32 } }
response
  throttle_time_ms:int32=0
  topics[] { topic:string partitions[] { error_code:int16 partition:int32 leader_epoch:int32=-1 end_offset:int64=-1 } }
"""

CLUSTER = """
ApiVersions 18 0-4 flexible 3
request
  client_software_name:string@3+= client_software_version:string@3+=
response
  error_code:int16=0
  api_keys[] { api_key:int16 min_version:int16 max_version:int16 }
  throttle_time_ms:int32@1+=0
  supported_features[]@3+#0=[] { name:string min_version:int16 max_version:int16 }
  finalized_features_epoch:int64@3+#1=-1
  finalized_features[]@3+#2=[] { name:string max_version_level:int16 min_version_level:int16 }
  zk_migration_ready:bool@3+#3=false

Metadata 3 0-12 flexible 9
request
  topics[]?1+ { topic_id:uuid@10+=zero name:string?10+ }
  allow_auto_topic_creation:bool@4+=true include_cluster_authorized_operations:bool@8-10=false
  include_topic_authorized_operations:bool@8+=false
response
  throttle_time_ms:int32@3+=0
  brokers[] { node_id:int32 host:string port:int32 rack:string@1+?=null }
  cluster_id:string@2+?=null controller_id:int32@1+=-1
  topics[] {
    error_code:int16 name:string?12+ topic_id:uuid@10+=zero is_internal:bool@1+=false
    partitions[] {
      error_code:int16 partition_index:int32 leader_id:int32 leader_epoch:int32@7+=-1
      replica_nodes:int32[] isr_nodes:int32[] offline_replicas:int32[]@5+=[]
    }
    topic_authorized_operations:int32@8+=-2147483648
  }
  cluster_authorized_operations:int32@8-10=-2147483648

FindCoordinator 10 0-5 flexible 3
request
  key:string@0-3= key_type:int8@1+=0 coordinator_keys:string[]@4+=[]
response
  throttle_time_ms:int32@1+=0
  error_code:int16@0-3=0 error_message:string@1-3?= node_id:int32@0-3=0 host:string@0-3= port:int32@0-3=0
  coordinators[]@4+=[] {
    key:string node_id:int32 host:string port:int32 error_code:int16 error_message:string?
  }

DescribeCluster 60 0-1 flexible 0
request
  include_cluster_authorized_operations:bool=false endpoint_type:int8@1+=1
response
  throttle_time_ms:int32=0 error_code:int16=0 error_message:string?=null endpoint_type:int8@1+=1
  cluster_id:string controller_id:int32=-1
  brokers[] { broker_id:int32 host:string port:int32 rack:string?=null }
  cluster_authorized_operations:int32=-2147483648
"""

TRANSACTIONS = """
InitProducerId 22 0-4 flexible 2
request
  transactional_id:string? transaction_timeout_ms:int32 producer_id:int64@3+=-1 producer_epoch:int16@3+=-1
response
  throttle_time_ms:int32=0 error_code:int16 producer_id:int64=-1 producer_epoch:int16

AddPartitionsToTxn 24 0-3 flexible 3
request
  transactional_id:string producer_id:int64 producer_epoch:int16 topics[] { name:string partitions:int32[] }
response
  throttle_time_ms:int32=0
  results_by_topic[] { name:string results_by_partition[] { partition_index:int32 partition_error_code:int16 } }

EndTxn 26 0-3 flexible 3
request
  transactional_id:string producer_id:int64 producer_epoch:int16 committed:bool
response
  throttle_time_ms:int32=0 error_code:int16
"""

ADMIN = """
CreateTopics 19 2-7 flexible 5
request
  topics[] {
    name:string num_partitions:int32 replication_factor:int16
    assignments[]=[] { partition_index:int32 broker_ids:int32[] }
    configs[]=[] { name:string value:string? }
  }
  timeout_ms:int32=60000 validate_only:bool=false
response
  throttle_time_ms:int32=0
  topics[] {
    name:string topic_id:uuid@7+=zero error_code:int16 error_message:string?
    topic_config_error_code:int16@5+#0=0 num_partitions:int32@5+=-1 replication_factor:int16@5+=-1
    configs[]@5+? { name:string value:string? read_only:bool config_source:int8=-1 is_sensitive:bool }
  }

DeleteTopics 20 1-6 flexible 4
request
  topics[]@6+=[] { name:string?=null topic_id:uuid=zero }
  topic_names:string[]@0-5=[] timeout_ms:int32
response
  throttle_time_ms:int32=0
  responses[] { name:string?6+ topic_id:uuid@6+=zero error_code:int16 error_message:string@5+?=null }

DescribeConfigs 32 1-4 flexible 4
request
  resources[] { resource_type:int8 resource_name:string configuration_keys:string[]? }
  include_synonyms:bool=false include_documentation:bool@3+=false
response
  throttle_time_ms:int32=0
  results[] {
    error_code:int16 error_message:string? resource_type:int8 resource_name:string
    configs[] {
      name:string value:string? read_only:bool config_source:int8=-1 is_sensitive:bool
      synonyms[]=[] { name:string value:string? source:int8 }
      config_type:int8@3+=0 documentation:string@3+?
    }
  }
"""

ALTERATIONS = """
CreatePartitions 37 0-3 flexible 2
request
  topics[] { name:string count:int32 assignments[]?=null { broker_ids:int32[] } }
  timeout_ms:int32 validate_only:bool
response
  throttle_time_ms:int32=0
  results[] { name:string error_code:int16 error_message:string?=null }

DeleteRecords 21 0-2 flexible 2
request
  topics[] { name:string partitions[] { partition_index:int32 offset:int64 } }
  timeout_ms:int32
response
  throttle_time_ms:int32=0
  topics[] { name:string partitions[] { partition_index:int32 low_watermark:int64 error_code:int16 } }

IncrementalAlterConfigs 44 0-1 flexible 1
request
  resources[] {
    resource_type:int8 resource_name:string
    configs[] { name:string config_operation:int8 value:string? }
  }
  validate_only:bool
response
  throttle_time_ms:int32=0
  responses[] { error_code:int16 error_message:string? resource_type:int8 resource_name:string }
"""

AUTHENTICATION = """
SaslHandshake 17 0-1 flexible never
request
  mechanism:string
response
  error_code:int16 mechanisms:string[]

SaslAuthenticate 36 0-2 flexible 2
request
  auth_bytes:bytes
response
  error_code:int16 error_message:string? auth_bytes:bytes session_lifetime_ms:int64@1+=0
"""

# Records of the topic __transaction_state (TransactionLogKey/Value.json of Kafka's transaction coordinator).
TRANSACTION_LOG = """
TransactionLogKey - 0-0 flexible never
request
  transactional_id:string

TransactionLogValue - 0-1 flexible 1
request
  producer_id:int64
  previous_producer_id:int64@1+#0=-1 next_producer_id:int64@1+#1=-1
  producer_epoch:int16 transaction_timeout_ms:int32 transaction_status:int8
  transaction_partitions[]? { topic:string partition_ids:int32[] }
  transaction_last_update_timestamp_ms:int64 transaction_start_timestamp_ms:int64
  client_transaction_version:int16@1+#2=0 next_producer_epoch:int16@1+#3=-1
"""

ALL = (DATA, CLUSTER, TRANSACTIONS, ADMIN, ALTERATIONS, AUTHENTICATION, TRANSACTION_LOG, *group_tables.ALL)
