package salver.streams;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.nio.FloatBuffer;
import java.util.List;
import java.util.Map;

/** A model in this process, by ONNX Runtime, with one thread for an operation and one between operations. */
final class OnnxScorer implements Scorer {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    private final String input;
    private final long[] shape;

    OnnxScorer(String path) throws OrtException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setInterOpNumThreads(1);
        options.setIntraOpNumThreads(1);
        session = environment.createSession(path, options);
        NodeInfo first = session.getInputInfo().values().iterator().next();
        input = first.getName();
        shape = ((TensorInfo) first.getInfo()).getShape();
    }

    @Override
    public List<List<Float>> score(List<List<Float>> points) throws OrtException {
        long[] rows = shape.clone();
        rows[0] = points.size();
        FloatBuffer values = FloatBuffer.wrap(Scorer.flat(points));
        try (OnnxTensor tensor = OnnxTensor.createTensor(environment, values, rows);
                OrtSession.Result result = session.run(Map.of(input, tensor))) {
            FloatBuffer answer = ((OnnxTensor) result.get(0)).getFloatBuffer();
            float[] copy = new float[answer.remaining()];
            answer.get(copy);
            return Scorer.rows(copy, points.size());
        }
    }

    @Override
    public void close() {
        try {
            session.close();
        } catch (OrtException e) {
            throw new IllegalStateException(e);
        }
    }
}
