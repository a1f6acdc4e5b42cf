package salver.streams;

import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import java.nio.ByteOrder;
import java.util.List;
import tensorflow.Tensor.TensorProto;
import tensorflow.Tensor.TensorShapeProto;
import tensorflow.Types.DataType;
import tensorflow.serving.Model.ModelSpec;
import tensorflow.serving.Predict.PredictRequest;
import tensorflow.serving.Predict.PredictResponse;
import tensorflow.serving.PredictionServiceGrpc;
import tensorflow.serving.PredictionServiceGrpc.PredictionServiceBlockingStub;

/** A model of a server that speaks TensorFlow Serving's gRPC: one blocking call for each record. */
final class ServingScorer implements Scorer {
    private final ManagedChannel channel;
    private final PredictionServiceBlockingStub stub;
    private final ModelSpec model;
    private final String input;
    private final String output;
    private final long[] inner;

    /** {@code inner} is the shape of one point as the model wants it, or empty for a flat one. */
    ServingScorer(String target, String model, String input, String output, long[] inner) {
        channel = ManagedChannelBuilder.forTarget(target).usePlaintext().build();
        stub = PredictionServiceGrpc.newBlockingStub(channel);
        this.model = ModelSpec.newBuilder().setName(model).build();
        this.input = input;
        this.output = output;
        this.inner = inner;
    }

    @Override
    public List<List<Float>> score(List<List<Float>> points) {
        TensorShapeProto.Builder shape = TensorShapeProto.newBuilder().addDim(size(points.size()));
        if (inner.length == 0) {
            shape.addDim(size(points.get(0).size()));
        }
        for (long n : inner) {
            shape.addDim(size(n));
        }
        TensorProto.Builder tensor = TensorProto.newBuilder().setDtype(DataType.DT_FLOAT).setTensorShape(shape);
        points.forEach(tensor::addAllFloatVal);
        PredictRequest request = PredictRequest.newBuilder()
                .setModelSpec(model)
                .putInputs(input, tensor.build())
                .addOutputFilter(output)
                .build();
        PredictResponse response = stub.predict(request);
        return Scorer.rows(floats(response.getOutputsOrThrow(output)), points.size());
    }

    private static TensorShapeProto.Dim size(long n) {
        return TensorShapeProto.Dim.newBuilder().setSize(n).build();
    }

    private static float[] floats(TensorProto tensor) {
        float[] values;
        if (tensor.getTensorContent().isEmpty()) {
            values = new float[tensor.getFloatValCount()];
            for (int i = 0; i < values.length; i++) {
                values[i] = tensor.getFloatVal(i);
            }
        } else {
            values = new float[tensor.getTensorContent().size() / Float.BYTES];
            tensor.getTensorContent().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        }
        return values;
    }

    @Override
    public void close() {
        channel.shutdownNow();
    }
}
